"""What a reward asks of a tenant's own services, the deployed rewriter and retrieval: each question once.

Nowhere else are the keys of these calls made: what is asked ahead of training (`data_prep.fill_baseline`) lies in the
ledger under the key that training looks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward.ledger.calls import Calls
from reward.records.call import Answer, Call, CallKind, CallTrace, ServiceFailure, content_key
from reward.records.expansion import Line
from reward.records.outcome import Evidence, passage_key, relevant_rank
from reward.records.rewrite_pair import words_of
from reward.records.sample import Hit, Sample
from reward.services.baseline_client import BaselineClient
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings
from reward.text.units import copied_run, idle_units

_EVIDENCE = 3  # version of what is kept of a retrieval: part of its key in the ledger
KEPT_HITS = 3
READ_HITS = 10  # their passages are compared with the rewrite: what was learnt by heart retrieves its source first


class TenantServices:
    """Use it from a single event loop; close it with `aclose`.

    Args:
        top_k: hits asked for (`RewardSettings.top_k`); what is kept of them is an `Evidence`.

    Raises:
        BadInput: a URL is none, or a variable that holds an API key is not set.
    """

    def __init__(self, tenant: TenantSettings, top_k: int, calls: Calls):
        self._tenant, self._top_k, self._calls = tenant, top_k, calls
        self._rag = RagClient(tenant.rag, tenant.tenant_id)
        self._baseline = BaselineClient(tenant.baseline, tenant.tenant_id)

    async def rewrite(self, sample: Sample, *, priority: float = 0.0) -> Answer:
        """The deployed rewriter's `{"rewritten_query": …}`, for a sample that has none recorded."""

        async def ask() -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
            rewrite, trace = await self._baseline.rewrite(sample, priority=priority)
            return rewrite if isinstance(rewrite, ServiceFailure) else {"rewritten_query": rewrite}, trace

        tenant, url = self._tenant.tenant_id, self._tenant.baseline.url or ""
        key = content_key("baseline", url, tenant, sample.original_query, sample.context.model_dump())
        return await self._calls.once(Call(CallKind.BASELINE, key, url, tenant), ask)

    async def retrieve(self, sample: Sample, rewrite: str, *, priority: float = 0.0) -> Answer:
        """What retrieval with `rewrite` finds: the JSON of an `Evidence`. No score is cut off: threshold 0."""
        return await self._retrieve(sample, rewrite, (), priority)

    async def expand(self, sample: Sample, lines: Sequence[Line], *, priority: float = 0.0) -> Answer:
        """What retrieval with the query as it stands and typed lines beside it finds: as `retrieve`."""
        return await self._retrieve(sample, sample.original_query, tuple(lines), priority)

    async def _retrieve(self, sample: Sample, rewrite: str, lines: tuple[Line, ...], priority: float) -> Answer:
        rag, tenant = self._tenant.rag, self._tenant.tenant_id
        said = "\n".join(line.text for line in lines) or words_of(rewrite)

        async def ask() -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
            found, trace = await self._rag.retrieve(
                sample.original_query,
                sample.context,
                rewritten_query=rewrite,
                top_k=self._top_k,
                score_threshold=0.0,
                expansions=lines,
                priority=priority,
            )
            if isinstance(found, ServiceFailure):
                return found, trace
            # The contents go to the ledger once each, the evidence holds their keys.
            self._calls.keep_passages({passage_key(hit.content): hit.content for hit in found.hits[:KEPT_HITS]})
            known = f"{sample.original_query}\n{sample.context.text}"
            evidence = evidence_of(found.hits, sample.relevant_doc_ids, said, known, found.origin)
            evidence = evidence.model_copy(update={"unsearched": found.unsearched})
            return evidence.model_dump(exclude_defaults=True), trace

        # Not the sample's id: exports number their rows from 1 each.
        service = (rag.url, tenant, rag.kb_name, rag.kb_version, self._top_k, rag.score_scale)
        asked: tuple[object, ...] = (
            sample.original_query,
            sample.context.model_dump(),
            sample.relevant_doc_ids,
            rewrite,
            *((line.kind, line.text) for line in lines),
        )
        return await self._calls.once(
            Call(CallKind.RAG, content_key("rag", _EVIDENCE, service, asked), rag.url, tenant), ask
        )

    async def aclose(self) -> None:
        await self._rag.aclose()
        await self._baseline.aclose()


def evidence_of(hits: Sequence[Hit], relevant: Sequence[str], rewrite: str, known: str, origin: str) -> Evidence:
    """Return what is kept of a retrieval's hits, in the service's order.

    Args:
        relevant: ids of the relevant passages, where they are known.
        rewrite: what was retrieved with.
        known: query and context, which the rewrite may repeat.
        origin: what gave the hits their scores (`Evidence.origin`).
    """
    top = hits[:KEPT_HITS]
    rank = relevant_rank(hits, relevant)
    # What pays is the relevant passage; where none is known, the passages whose scores count.
    paying = top if not relevant else () if rank is None else (hits[rank - 1],)
    return Evidence(
        top_hits=tuple(hit.model_copy(update={"content": ""}) for hit in top),
        rank=rank,
        passages=tuple(passage_key(hit.content) for hit in top),
        origin=origin,
        copied_run=copied_run(rewrite, [hit.content for hit in hits[:READ_HITS]], known),
        idle_units=idle_units(rewrite, [hit.content for hit in paying], known),
        lacks_ids=any(hit.doc_id is None for hit in hits),
        lacks_scores=bool(hits) and all(hit.score is None and hit.reranker_score is None for hit in hits),
    )
