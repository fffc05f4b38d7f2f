"""What a row lacks of the deployed rewriter's answers, asked for as training asks for it, each question once.

Training finds in the ledger what was asked here: `reward.services.tenant_services` and `reward.judge.judge` make the
same questions.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from data_prep.bvt.row import NO_HIT
from data_prep.dataset.sample_parts import context_of
from data_prep.rows.bare_rewrites import bare_rewrite
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_line
from plain_text.thinking import without_thinking
from reward.judge.judge import Judge
from reward.ledger.calls import Calls, Perform
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, Call, CallKind, CallTrace, FailureKind, ServiceFailure
from reward.records.outcome import Evidence
from reward.records.sample import Metadata, Sample
from reward.services.tenant_services import TenantServices
from reward.settings.recipe import TenantSettings

Row = dict[str, Any]  # of `columns.ROWS`
_NOTHING_FOUND: Row = {
    "recall_results": "",
    "recall_count": None,
    "top1_score": None,
    "avg_top3_score": None,
    "quality_score": None,
}


@dataclass
class Filled:
    """A row with what was found for it.

    Args:
        asked: service asked → why that failed ("" = it did not). A service that could not be asked, because the
            rewrite is missing, is not in it.
        answers: all of them, also those that the ledger had.
    """

    row: Row
    asked: dict[CallKind, str] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    @property
    def failure(self) -> str:
        return next((f"{kind}: {self.asked[kind]}" for kind in CallKind if self.asked.get(kind)), "")


class BaselineAnswers:
    """Fills rows. Use it from a single event loop; close it with `aclose`.

    Args:
        judge: grades the rewrites; without one they are not judged.
        relevant: query id → ids of its relevant documents; training asks with them, so the same must be given here.
        all_rows: ask also for what a row has recorded; the row keeps what it has.
    """

    def __init__(
        self,
        tenant: TenantSettings,
        services: TenantServices,
        judge: Judge | None,
        relevant: Mapping[str, Sequence[str]],
        all_rows: bool,
    ):
        self._tenant, self._services, self._judge = tenant, services, judge
        self._relevant, self._all_rows = relevant, all_rows

    def lacks(self, row: Row) -> set[CallKind]:
        """Return which services to ask about `row`. Hits or a grade recorded without their rewrite count for
        nothing."""
        if not row["rewritten_query"]:
            return {CallKind.BASELINE, CallKind.RAG} | ({CallKind.JUDGE} if self._judge else set())
        lacking = set()
        if self._all_rows or not _has_hits(row):
            lacking.add(CallKind.RAG)
        if self._judge and (self._all_rows or row["quality_score"] is None):
            lacking.add(CallKind.JUDGE)
        return lacking

    async def fill(self, row: Row) -> Filled:
        """Ask for what `row` lacks; what failed stays missing, and `error` says why."""
        filled, lacking = Filled(dict(row)), self.lacks(row)
        if not lacking:
            return filled
        sample = self._sample(row)
        if CallKind.BASELINE in lacking:
            await self._rewrite(filled, sample)
        if filled.row["rewritten_query"]:
            asked = [self._retrieve(filled, sample)] if CallKind.RAG in lacking else []
            if self._judge and CallKind.JUDGE in lacking:
                asked.append(self._grade(self._judge, filled, sample))
            await asyncio.gather(*asked)
        if filled.failure:
            filled.row["error"] = filled.failure
        return filled

    def _sample(self, row: Row) -> Sample:
        return Sample(
            sample_id=f"row {row['row']}",
            original_query=row["original_query"],
            context=context_of(row),
            metadata=Metadata(tenant_id=self._tenant.tenant_id),
            relevant_doc_ids=tuple(self._relevant.get(row["query_id"], ())),
        )

    async def _rewrite(self, filled: Filled, sample: Sample) -> None:
        answer = await self._services.rewrite(sample)
        filled.answers.append(answer)
        if isinstance(answer.value, ServiceFailure):
            filled.asked[CallKind.BASELINE] = answer.value.reason
            return
        # Cleaned as the builders clean a recorded one: this is what training will retrieve with.
        asked = (sample.original_query, sample.context.history_summary, sample.context.history_context)
        told, _ = bare_rewrite(without_thinking(str(answer.value["rewritten_query"])), *asked)
        told = normalise_line(told)
        rewrite, _ = deidentify_text(told, self._tenant.deidentify)
        if not rewrite:
            filled.asked[CallKind.BASELINE] = "a rewrite of invisible characters came back"
            return
        filled.asked[CallKind.BASELINE] = ""
        filled.row |= {"rewritten_query": rewrite, "error": "", **_NOTHING_FOUND}

    async def _retrieve(self, filled: Filled, sample: Sample) -> None:
        answer = await self._services.retrieve(sample, filled.row["rewritten_query"])
        filled.answers.append(answer)
        if isinstance(answer.value, ServiceFailure):
            filled.asked[CallKind.RAG] = answer.value.reason
            return
        filled.asked[CallKind.RAG] = ""
        if _has_hits(filled.row):
            return
        hits = Evidence.model_validate(answer.value).top_hits
        scores = [hit.relevance for hit in hits]
        filled.row |= {
            "recall_results": json.dumps([hit.model_dump(exclude_none=True) for hit in hits], ensure_ascii=False),
            "recall_count": len(hits),
            "top1_score": scores[0] if scores else None,
            "avg_top3_score": fmean(scores) if scores else None,
            "success": True if scores else filled.row["success"],
            "error": "" if scores else NO_HIT,
        }

    async def _grade(self, judge: Judge, filled: Filled, sample: Sample) -> None:
        votes = await judge.grade_baseline(sample, filled.row["rewritten_query"])
        filled.answers += votes.answers
        score = votes.score
        if isinstance(score, ServiceFailure):
            filled.asked[CallKind.JUDGE] = score.reason
            return
        filled.asked[CallKind.JUDGE] = ""
        if filled.row["quality_score"] is None:
            filled.row["quality_score"] = score

    async def aclose(self) -> None:
        await self._services.aclose()
        if self._judge is not None:
            await self._judge.aclose()


def _has_hits(row: Row) -> bool:
    """Return whether retrieval is recorded: hits, scores without hits, or that nothing was found."""
    return bool(row["recall_results"]) or row["top1_score"] is not None or row["recall_count"] is not None


class RecordedCalls(Calls):
    """Answers from the ledger alone. `missing` names, by kind, the calls that would be made."""

    def __init__(self, ledger: Ledger):
        super().__init__(ledger)
        self._recorded = ledger
        self.missing: dict[CallKind, set[str]] = {kind: set() for kind in CallKind}

    async def once(self, call: Call, perform: Perform, cost: Callable[[CallTrace], float] | None = None) -> Answer:
        found = self._recorded.find(call.key)
        if found is None:
            self.missing[call.kind].add(call.key)
            return Answer(call.kind, ServiceFailure("not asked yet", FailureKind.NOT_CONFIGURED), "stored")
        return Answer(call.kind, found, "stored")
