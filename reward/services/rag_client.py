"""Client of the tenant's retrieval service: `POST {url}/api/chat/general_rag` (spec 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.files import first_problem
from reward.records.sample import Context, Hit
from reward.services.http_calls import JsonService
from reward.settings.recipe import RagSettings

_HITS = TypeAdapter(list[Hit])


@dataclass(frozen=True)
class RagAnswer:
    """`hits` in the service's order; the rest as it reports it ("" when absent). `reranker` names what gave the hits
    their `reranker_score`."""

    hits: tuple[Hit, ...]
    rewritten_query: str
    user_profile: str
    history_summary: str
    reranker: str = ""


class RagClient:
    """Retrieves for one tenant. Use it from a single event loop; close it with `aclose`."""

    def __init__(self, settings: RagSettings, tenant_id: str):
        self._settings = settings
        self._tenant_id = tenant_id
        self._service = JsonService(settings.url, settings)

    @property
    def calls(self) -> int:
        """Count the HTTP requests sent so far, retries included."""
        return self._service.calls

    async def retrieve(
        self,
        query: str,
        context: Context,
        *,
        rewritten_query: str | None = None,
        top_k: int = 5,
        score_threshold: float = 0.5,
        priority: float = 0.0,
    ) -> tuple[RagAnswer | ServiceFailure, CallTrace]:
        """Retrieve hits for `query` with `rewritten_query` as it is, or with the service's own rewrite where none is
        given; return them and how the call went. No hit is an answer too."""
        body = {
            "query": query,
            "tenant_id": self._tenant_id,
            "kb_name": self._settings.kb_name,
            "history": context.history_context,
            "user_profile": context.user_profile,
            "history_summary": context.history_summary,
            "top_k": top_k,
            "score_threshold": score_threshold,
        }
        if rewritten_query is not None:
            body["rewritten_query"] = rewritten_query
        answer, trace = await self._service.post("/api/chat/general_rag", body, priority=priority)
        if not isinstance(answer, ServiceFailure):
            return self._read(answer), trace
        return answer, trace

    def _read(self, answer: dict[str, Any]) -> RagAnswer | ServiceFailure:
        data = answer.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("recall"), list):
            return ServiceFailure("answer lacks data.recall", FailureKind.MALFORMED)
        tenant_id = data.get("tenant_id")
        if tenant_id is not None and tenant_id != self._tenant_id:
            reason = f"data.tenant_id: asked for {self._tenant_id!r}, answered for {tenant_id!r}"
            return ServiceFailure(reason, FailureKind.MALFORMED)
        try:
            hits = _HITS.validate_python(data["recall"], strict=True, extra="ignore")
        except ValidationError as error:
            return ServiceFailure(f"data.recall: {first_problem(error)}", FailureKind.MALFORMED)
        if not all(_is_finite(hit.score) and _is_finite(hit.reranker_score) for hit in hits):  # 1e999 reads as infinity
            return ServiceFailure("data.recall: a score is not finite", FailureKind.MALFORMED)
        return RagAnswer(
            hits=tuple(hits),
            rewritten_query=str(data.get("rewritten_query") or ""),
            user_profile=str(data.get("user_profile") or ""),
            history_summary=str(data.get("history_summary") or ""),
            reranker=str(data.get("reranker") or ""),
        )

    async def aclose(self) -> None:
        await self._service.aclose()


def _is_finite(score: float | None) -> bool:
    return score is None or math.isfinite(score)
