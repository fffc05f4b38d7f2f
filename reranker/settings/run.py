"""The settings of a training run: one YAML file, validated at once. An unknown key is an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from reward.records.files import BadInput, first_problem
from reward.settings.data import StrictSettings

Method = Literal["full", "lora", "qlora"]
LossName = Literal["margin", "ranknet", "margin_mse", "bce"]


class MiningSettings(StrictSettings):
    """Hard negatives by first-stage retrieval over all passages of the data.

    Args:
        embedder: folder of a sentence-transformers model; BM25 without one.
        depth: so many passages of a query's ranking are looked at.
        guard: a passage that scores above this share of the query's best positive is left out, since it may be an
            answer that nobody marked (NV-Retriever, arXiv 2407.15831: .95).
    """

    embedder: Path | None = None
    depth: int = Field(30, ge=1)
    guard: float = Field(0.95, gt=0)


class DataSettings(StrictSettings):
    """What is learned from.

    Args:
        train: files (`.jsonl`; `.xlsx`, `.csv` of a batch test) and folders (BEIR, or one with reranker_pairs.jsonl).
        validation: the same, for a fixed validation set; without it a share of the components is held out.
        forgetting: the same, for a fixed general set on which the model must not become worse; without it a share of
            the components that neither training nor the choice of the checkpoint sees.
        qrels, corpus: of a BVT export: `qrels.tsv` says which hits answer, `corpus.jsonl` holds answers that were not
            found.
        candidates: passages of a validation query: its own, then hard negatives, then random ones, fixed by the seed.
    """

    train: list[Path] = Field(min_length=1)
    validation: list[Path] = Field(default_factory=list)
    forgetting: list[Path] = Field(default_factory=list)
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    heldout_share: float = Field(0.1, gt=0, lt=0.5)
    qrels: Path | None = None
    corpus: Path | None = None
    candidates: int = Field(30, ge=2)
    mining: MiningSettings | None = None


class GroupSettings(StrictSettings):
    """A query's group in one epoch: up to `positives` of its answers, `hard` of its own or mined negatives, `random`
    passages of other training queries. Missing hard ones are made up for by random ones."""

    positives: int = Field(2, ge=1)
    hard: int = Field(4, ge=0)
    random: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _some_negatives(self) -> GroupSettings:
        if self.hard + self.random < 1:
            raise ValueError("hard + random must be at least 1: a group needs a negative")
        return self


class LoraSettings(StrictSettings):
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class TrainingSettings(StrictSettings):
    """How is learned.

    Args:
        loss: `margin`: max(0, margin - (positive - negative)); `ranknet`: log(1 + exp(negative - positive));
            `margin_mse`: squared error to a teacher's margins; `bce`: each pair alone, as Qwen advises for
            Qwen3-Reranker.
        teacher: folder of a CrossEncoder that scores the passages for `margin_mse`; without it every passage needs a
            `score`.
        batch_size: queries in a step.
        max_steps: ends earlier than `epochs` (the schedule is that of the shorter).
        freeze_embeddings: leave the table of word embeddings as it is. For a multilingual encoder it is most of the
            weights, and rare words keep their place.
        eval_steps: validation, checkpoint and alarms every so many steps.
        patience: validations without a better nDCG@10 after which training stops.
        precision: of training passes; `auto` is bf16 on a GPU or CPU that has it in hardware, else fp32.
        report_to: where metrics go, beside the run's own files.
    """

    method: Method = "full"
    loss: LossName = "margin"
    margin: float = Field(1.0, gt=0)
    teacher: Path | None = None
    epochs: int = Field(3, ge=1)
    max_steps: int | None = Field(None, ge=1)
    batch_size: int = Field(8, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(2e-5, gt=0)
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    freeze_embeddings: bool = False
    gradient_checkpointing: bool = False
    eval_steps: int = Field(100, ge=1)
    patience: int = Field(5, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    lora: LoraSettings = LoraSettings()
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)


class ExportSettings(StrictSettings):
    """What is written.

    Args:
        forgetting_tolerance: how much nDCG@10 on the forgetting set may fall.
        onnx: write an int8 ONNX file for CPUs too (needs the extra `reranker`).
        onnx_tolerance: the largest mean difference of its scores from the folder's, in [0, 1].
    """

    forgetting_tolerance: float = Field(0.01, ge=0)
    onnx: bool = False
    onnx_tolerance: float = Field(0.05, gt=0)


class RunSettings(StrictSettings):
    """A run.

    Args:
        output: folder of everything the run writes; the model is in `output/model`.
        base: folder of the model to start from: encoder with or without a head, or causal model.
        max_length: tokens of query and passage together, in training and in the exported model.
    """

    output: Path
    base: Path
    seed: int = Field(0, ge=0)
    max_length: int = Field(512, ge=8)
    data: DataSettings
    groups: GroupSettings = GroupSettings()
    training: TrainingSettings = TrainingSettings()
    export: ExportSettings = ExportSettings()

    @model_validator(mode="after")
    def _teacher_has_a_use(self) -> RunSettings:
        if self.training.teacher is not None and self.training.loss != "margin_mse":
            raise ValueError(f"training.teacher has no use with loss {self.training.loss}: write margin_mse")
        return self

    @property
    def sha256(self) -> str:
        """Hash of what decides the result: all but the folder, and where the run is cut off."""
        values = self.model_dump(mode="json", exclude={"output": True, "training": {"report_to"}})
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_settings(path: Path) -> RunSettings:
    """Read a run's YAML file. Its relative paths are relative to the working folder.

    Raises:
        BadInput: no such file, no YAML, or a setting that is unknown or out of range.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: expected settings by name, found {type(values).__name__}")
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{path}: {first_problem(error)}") from None
