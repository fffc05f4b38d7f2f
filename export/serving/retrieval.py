"""`POST /api/chat/general_rag` in front of the tenant's RAG service: two rewrites retrieve, people's clicks decide.

The caller gets the hits of both rewriters interleaved and reports clicks to `POST /api/outcome`; only the log says
which team picked which hit.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

from export.serving.assignment import is_chosen
from export.serving.contract import RewriteRequest
from export.serving.interleaving import team_draft
from export.serving.metrics import Metrics
from export.serving.outcome_log import OutcomeLog
from export.serving.tenant_route import TenantRoute
from reward.records.call import FailureKind, ServiceFailure
from reward.records.rewrite_pair import retrieval_fields
from reward.services.http_calls import JsonService

PATH = "/api/chat/general_rag"
TOP_K = 5


class InterleavedRetrieval:
    """Use it from a single event loop; close it with `aclose`."""

    def __init__(self, route: TenantRoute, log: OutcomeLog, metrics: Metrics):
        self._route, self._log, self._metrics = route, log, metrics
        rag = route.tenant.rag
        self._kb_name = rag.kb_name
        self._rag = JsonService(rag.url, rag.model_copy(update={"attempts": 1, "max_concurrency": 64}))

    async def retrieve(
        self, request: RewriteRequest, body: Mapping[str, Any], request_id: str
    ) -> dict[str, Any] | ServiceFailure:
        """Return the RAG service's answer to `body`, its hits interleaved where the user takes part.

        A body that brings its rewrite goes through as it is. When one of the two retrievals fails, the other one's hits
        are the answer and nothing is credited.
        """
        tenant_id, route = self._route.tenant.tenant_id, self._route
        asked = {"kb_name": self._kb_name, "top_k": TOP_K, **body, "tenant_id": tenant_id}
        test = route.settings.interleave
        rewrite = body.get("rewritten_query")
        if isinstance(rewrite, str) and rewrite.strip():
            return self._counted(await self._ask(asked, rewrite))
        if test is None or not is_chosen(test.name, request.unit or request_id, test.share):
            answer = await route.answer(request, request_id)
            return self._counted(await self._ask(asked, answer.text))

        # Both rewrite, both retrieve, side by side.
        sample = request.sample(route.tenant)
        arms = (route.settings.answer, test.rewriter)
        made = await asyncio.gather(*(route.rewrite_by(arm, sample) for arm in arms))
        for answer, cut in made:
            self._metrics.count_answer(tenant_id, answer.arm, answer.failure, answer.seconds, cut)
        (a, _), (b, _) = made
        found_a, found_b = await asyncio.gather(self._ask(asked, a.text), self._ask(asked, b.text))
        if isinstance(found_a, ServiceFailure) or isinstance(found_b, ServiceFailure):
            return self._counted(found_b if isinstance(found_a, ServiceFailure) else found_a)

        # One list; an impression without two rewriters' answers says nothing of either.
        hits_a, hits_b = _hits(found_a), _hits(found_b)
        drafted = team_draft(list(hits_a), list(hits_b), _length(asked), request_id)
        known = {**hits_b, **hits_a}
        self._metrics.count_retrieval(tenant_id, "interleaved")
        self._log.write(
            "interleaved",
            request_id=request_id,
            tenant_id=tenant_id,
            experiment=test.name,
            unit=self._log.unit(request.unit or request_id),
            a=arms[0],
            b=arms[1],
            failed=[answer.arm for answer in (a, b) if answer.failure],
            same=list(hits_a)[: len(drafted)] == list(hits_b)[: len(drafted)],
            shown=[[one.document, one.team] for one in drafted],
            query=request.query,
        )
        data = {**found_a["data"], "recall": [known[one.document] for one in drafted]}
        return {**found_a, "data": data}

    async def _ask(self, asked: Mapping[str, Any], rewrite: str) -> dict[str, Any] | ServiceFailure:
        answer, _ = await self._rag.post(PATH, {**asked, **retrieval_fields(rewrite)})
        if isinstance(answer, dict) and not isinstance((answer.get("data") or {}).get("recall"), list):
            return ServiceFailure("answer lacks data.recall", FailureKind.MALFORMED)
        return answer

    def _counted(self, found: dict[str, Any] | ServiceFailure) -> dict[str, Any] | ServiceFailure:
        outcome = "failed" if isinstance(found, ServiceFailure) else "single"
        self._metrics.count_retrieval(self._route.tenant.tenant_id, outcome)
        return found

    async def aclose(self) -> None:
        await self._rag.aclose()


def document_id(hit: Mapping[str, Any]) -> str:
    """Return what names a hit in clicks: its `doc_id`, else a hash of its content."""
    if isinstance(name := hit.get("doc_id"), str) and name:
        return name
    return "sha256:" + hashlib.sha256(str(hit.get("content", "")).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _hits(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the hits of an answer by their document, in their order; a repeated document counts once."""
    hits: dict[str, Mapping[str, Any]] = {}
    for hit in found["data"]["recall"]:
        if isinstance(hit, dict):
            hits.setdefault(document_id(hit), hit)
    return hits


def _length(asked: Mapping[str, Any]) -> int:
    top_k = asked["top_k"]
    return top_k if isinstance(top_k, int) and top_k > 0 else TOP_K
