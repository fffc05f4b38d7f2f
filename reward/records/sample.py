"""The one definition of a sample and of a retrieval hit.

A value walks one way: workbook row -> `Sample` -> parquet `extra_info` -> `Sample` -> scorer -> `Outcome`
(`reward.records.outcome`) -> trainer batch, rollout log, metrics, report. Every stage reads and writes these types and
no other. The JSON names are those of the canonical data set (docs/contracts.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reward.records.files import BadInput, first_problem


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Hit(Record):
    """One retrieved passage. `score` is the engine's fused score, `reranker_score` lies in [0, 1] or is absent."""

    content: str
    score: float | None = None
    reranker_score: float | None = None
    doc_id: str | None = None

    @property
    def relevance(self) -> float:
        """The hit's score: `reranker_score`, else `score`, else 0."""
        if self.reranker_score is not None:
            return self.reranker_score
        return self.score if self.score is not None else 0.0


class Context(Record):
    """What the service knows besides the query. `history_context` is lines of `用户: …` / `助手: …`."""

    user_profile: str = ""
    history_summary: str = ""
    history_context: str = ""
    thought_unit: str = ""

    @property
    def text(self) -> str:
        """All non-empty parts joined by newlines, for lexical checks against the context."""
        return "\n".join(p for p in (self.user_profile, self.history_summary, self.history_context) if p)


class Metadata(Record):
    source: Literal["production_log", "test_set"] = "test_set"
    timestamp: str = ""
    model: str = ""
    quality_score: float | None = None
    tenant_id: str
    top1_score: float | None = None
    recall_count: int | None = None
    augmented: bool = False
    split: Literal["train", "val", "test"] = "train"
    slices: tuple[str, ...] = ()


class Candidates(Record):
    """The two rewrites that compete; the JSON names are those of the canonical data set."""

    policy: str = Field(default="", alias="qwen_8b_rewrite")
    baseline: str = Field(default="", alias="qwen_32b_rewrite")


class RetrievalResults(Record):
    policy: tuple[Hit, ...] = Field(default=(), alias="qwen_8b_results")
    baseline: tuple[Hit, ...] = Field(default=(), alias="qwen_32b_results")


class Sample(Record):
    """A query with its context, its recorded baseline and, when known, its relevant passages.

    The same record is an SFT sample (`rewritten_query` set), an RL prompt (`candidates.baseline` set) and a
    finished rollout (`candidates.policy`, `retrieval_results`, `evaluation`, `reward` set).
    """

    sample_id: str
    original_query: str = Field(min_length=1)
    rewritten_query: str = ""
    context: Context = Context()
    metadata: Metadata
    candidates: Candidates = Candidates()
    retrieval_results: RetrievalResults = RetrievalResults()
    relevant_doc_ids: tuple[str, ...] = ()
    evaluation: dict[str, Any] = Field(default_factory=dict)
    reward: float | None = None

    def to_json(self) -> str:
        """One line of a canonical data set. An RL prompt has no rewrite to imitate and no key for it."""
        return self.model_dump_json(by_alias=True, exclude=None if self.rewritten_query else {"rewritten_query"})

    def to_extra_info(self, index: int) -> dict[str, Any]:
        """The `extra_info` struct of a verl parquet row: uniform keys, the sample itself as one JSON string.

        Recorded hits stay behind: the trainer moves this struct with every rollout, and retrieval is live there.
        """
        sample = self.model_copy(update={"retrieval_results": RetrievalResults()})
        return {"index": index, "split": self.metadata.split, "sample": sample.to_json()}

    @classmethod
    def from_extra_info(cls, extra_info: dict[str, Any]) -> Sample:
        """Inverse of `to_extra_info`; keys that the trainer adds beside `sample` are ignored."""
        return cls.model_validate_json(extra_info["sample"])


def read_samples(path: Path) -> list[Sample]:
    """Samples of a JSONL file, one a line.

    Raises:
        BadInput: the file is missing or empty, or a line does not hold a valid sample (names file, row and field).
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    samples = []
    with path.open(encoding="utf-8") as lines:
        for row, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                samples.append(Sample.model_validate_json(line))
            except ValidationError as error:
                raise BadInput(f"{path}: row {row}: {first_problem(error)}") from None
    if not samples:
        raise BadInput(f"{path}: holds no sample")
    return samples
