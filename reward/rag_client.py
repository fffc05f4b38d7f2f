"""Client of the tenant's retrieval service: `POST {url}/api/chat/general_rag` (spec 1)."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from reward.http_calls import JsonService, ServiceFailure
from reward.records import Context, Hit, first_problem
from reward.settings import RagSettings


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
        """HTTP requests sent so far, retries included."""
        return self._service.calls

    async def retrieve(
        self,
        query: str,
        context: Context,
        *,
        rewritten_query: str | None = None,
        top_k: int = 5,
        score_threshold: float = 0.5,
    ) -> RagAnswer | ServiceFailure:
        """Hits for `query`, retrieved with `rewritten_query` as it stands, or with the service's own rewrite of
        `query` when none is given."""
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
        answer = await self._service.post("/api/chat/general_rag", body)
        if isinstance(answer, ServiceFailure):
            return answer
        data = answer.get("data")
        if not isinstance(data, dict) or not isinstance(data.get("recall"), list):
            return ServiceFailure("answer lacks data.recall")
        try:
            hits = tuple(Hit.model_validate({k: h.get(k) for k in Hit.model_fields}) for h in data["recall"])
        except (ValidationError, AttributeError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else "a hit is not an object"
            return ServiceFailure(f"data.recall: {problem}")
        return RagAnswer(
            hits=hits,
            rewritten_query=str(data.get("rewritten_query") or ""),
            user_profile=str(data.get("user_profile") or ""),
            history_summary=str(data.get("history_summary") or ""),
            reranker=str(data.get("reranker") or ""),
        )

    async def aclose(self) -> None:
        await self._service.aclose()
