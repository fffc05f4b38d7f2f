"""Ask the live retrieval service about one rewrite through one channel: once, on disk, within a cap on requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.headroom_study.channels import CHANNELS, SERVICE, why_unmeasured
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Call, CallKind, CallTrace, FailureKind, ServiceFailure, content_key
from reward.records.files import BadInput
from reward.records.outcome import relevant_rank
from reward.records.sample import Sample
from reward.services.baseline_client import BaselineClient
from reward.services.rag_client import RagAnswer, RagClient
from reward.settings.recipe import LedgerSettings, TenantSettings

TOP_K = 100
PROBES = 5
GIVE_UP_AFTER = 50  # failures in a row: the service is gone, and what it does not answer must not pass for no room
_VERSION = 1  # of what is kept of a retrieval: part of its key


@dataclass(frozen=True)
class Retrieved:
    """What a rewrite found. `rank`: from 1, of the first relevant passage; None: not among the first `TOP_K`.
    `top1`: score of the first hit."""

    rank: int | None
    top1: float


NOTHING = Retrieved(None, 0.0)
Result = Retrieved | ServiceFailure


class Asker:
    """Use it from a single event loop; close it with `aclose`. A failure is an answer and is not kept; after
    `GIVE_UP_AFTER` in a row `BadInput` ends the study.

    Args:
        ledger: file of the answers; a later run with the same retriever finds them there.
        max_calls: requests to the retrieval service, those of this run alone; further questions fail.

    Attributes:
        requests: HTTP requests to the retrieval service, retries included.
        made, stored, refused: questions asked of it, found on disk, and not asked because of the cap.
        scorers: what the service names as the giver of the hits' scores.

    Raises:
        BadInput: the ledger cannot be used, a URL is none, or an API key is missing.
    """

    def __init__(self, tenant: TenantSettings, ledger: Path, max_calls: int):
        self._tenant, self._max_calls = tenant, max_calls
        self._ledger = Ledger(LedgerSettings(path=ledger, run_id="headroom"))
        self._calls = Calls(self._ledger, memory=100_000)
        self._rag = RagClient(tenant.rag, tenant.tenant_id)
        self._baseline = BaselineClient(tenant.baseline, tenant.tenant_id)
        self._under_way = self._failed_in_a_row = 0
        self.fingerprint = ""
        self.scorers: set[str] = set()
        self.requests = self.made = self.stored = self.refused = 0

    @property
    def baseline_requests(self) -> int:
        return self._baseline.calls

    async def identify(self, samples: list[Sample], described: dict[str, Any] | None) -> Sample:
        """Ask `PROBES` of the queries anew: answers that were kept count only for a retriever that answers these alike.

        Args:
            described: what the service says of its knowledge base and index; None where it does not.

        Returns:
            The first sample that was answered.

        Raises:
            BadInput: the service answers none of them.
        """
        seen: list[Any] = []
        answered: Sample | None = None
        failure = ""
        for sample in samples[:PROBES]:
            answer = await self._retrieve(sample, sample.original_query, SERVICE)
            if isinstance(answer, ServiceFailure):
                failure = failure or answer.reason
                continue
            answered = answered or sample
            seen.append([sample.sample_id, [[hit.doc_id, hit.content[:200]] for hit in answer.hits[:10]]])
            self.scorers.add(answer.reranker)
        if answered is None:
            raise BadInput(f"{self._tenant.rag.url}: {failure}")
        self.fingerprint = content_key("retriever", seen, sorted(self.scorers), described or {})[:16]
        return answered

    async def why_unmeasured(self, sample: Sample, channel: str) -> str | None:
        """Ask one query through a channel; say why the service cannot measure it, None where it can."""
        answer = await self._retrieve(sample, sample.original_query, channel)
        if isinstance(answer, ServiceFailure):
            return answer.reason
        return why_unmeasured(channel, answer.channels)

    async def ask(self, sample: Sample, rewrite: str, channel: str) -> Result:
        """Return what `rewrite` finds for the sample. A blank rewrite finds nothing and is not sent: the service would
        take it for none and rewrite by itself."""
        if not rewrite.strip():
            return NOTHING

        async def perform() -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
            answer = await self._retrieve(sample, rewrite, channel)
            if isinstance(answer, ServiceFailure):
                return answer, CallTrace()
            if sample.relevant_doc_ids and any(hit.doc_id is None for hit in answer.hits):
                reason = "hits without doc_id, while the relevant passages are known by their ids"
                return ServiceFailure(reason, FailureKind.MALFORMED), CallTrace()
            hits = answer.hits[:TOP_K]
            rank = relevant_rank(hits, sample.relevant_doc_ids)
            return {"rank": rank, "top1": hits[0].relevance if hits else 0.0}, CallTrace(attempts=1)

        rag = self._tenant.rag
        service = (rag.url, self._tenant.tenant_id, rag.kb_name, rag.kb_version, rag.score_scale, self.fingerprint)
        asked = (sample.original_query, sample.context.model_dump(), sorted(sample.relevant_doc_ids), rewrite)
        key = content_key("headroom", _VERSION, service, channel, CHANNELS[channel], TOP_K, asked)
        answer = await self._calls.once(Call(CallKind.RAG, key, rag.url, self._tenant.tenant_id), perform)
        self.made += answer.source == "made"
        self.stored += answer.source == "stored"
        if isinstance(answer.value, ServiceFailure):
            return answer.value
        return Retrieved(answer.value["rank"], answer.value["top1"])

    async def ask_baseline(self, sample: Sample, draw: int) -> str | ServiceFailure:
        """Return the deployed rewriter's live answer number `draw` to the sample; a recorded one is not used."""
        unrecorded = sample.model_copy(update={"candidates": sample.candidates.model_copy(update={"baseline": ""})})

        async def perform() -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
            rewrite, trace = await self._baseline.rewrite(unrecorded)
            return rewrite if isinstance(rewrite, ServiceFailure) else {"rewritten_query": rewrite}, trace

        url, tenant = self._tenant.baseline.url or "", self._tenant.tenant_id
        asked = (url, tenant, sample.original_query, sample.context.model_dump(), draw)
        key = content_key("headroom baseline", _VERSION, asked)
        answer = await self._calls.once(Call(CallKind.BASELINE, key, url, tenant), perform)
        return answer.value if isinstance(answer.value, ServiceFailure) else str(answer.value["rewritten_query"])

    async def aclose(self) -> None:
        await self._rag.aclose()
        await self._baseline.aclose()
        self._ledger.close()

    async def _retrieve(self, sample: Sample, rewrite: str, channel: str) -> RagAnswer | ServiceFailure:
        # Requests that are under way count as one each until it shows how often they were tried.
        if self.requests + self._under_way >= self._max_calls:
            self.refused += 1
            return ServiceFailure(f"--max-calls {self._max_calls} are used up", FailureKind.BUDGET_SPENT)
        self._under_way += 1
        try:
            answer, trace = await self._rag.retrieve(
                sample.original_query,
                sample.context,
                rewritten_query=rewrite,
                top_k=TOP_K,
                score_threshold=0.0,
                channels=CHANNELS[channel],
            )
            self.requests += trace.attempts
        finally:
            self._under_way -= 1
        self._failed_in_a_row = self._failed_in_a_row + 1 if isinstance(answer, ServiceFailure) else 0
        if isinstance(answer, ServiceFailure) and self._failed_in_a_row >= GIVE_UP_AFTER:
            raise BadInput(
                f"{self._tenant.rag.url}: gave up after {GIVE_UP_AFTER} failures in a row: {answer.reason}; "
                "the answers so far are kept, the same command goes on"
            )
        if isinstance(answer, RagAnswer) and (why := why_unmeasured(channel, answer.channels)):
            return ServiceFailure(why, FailureKind.MALFORMED)
        return answer
