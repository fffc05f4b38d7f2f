"""The rewriter to beat: its recorded rewrite first, `POST {url}/api/rewrite_query` (spec 1) for what is missing."""

from __future__ import annotations

from reward.http_calls import JsonService, ServiceFailure
from reward.records import Sample
from reward.settings import BaselineSettings


class BaselineClient:
    """Use it from a single event loop; close it with `aclose`."""

    def __init__(self, settings: BaselineSettings, tenant_id: str):
        self._tenant_id = tenant_id
        self._service = JsonService(settings.url, settings) if settings.url else None

    async def rewrite(self, sample: Sample) -> str | ServiceFailure:
        """The baseline's rewrite of `sample.original_query`; a missing answer is a failure, never the query itself."""
        if sample.candidates.baseline:
            return sample.candidates.baseline
        if self._service is None:
            return ServiceFailure("no recorded rewrite and no baseline url configured")
        answer = await self._service.post(
            "/api/rewrite_query",
            {
                "query": sample.original_query,
                "history": sample.context.history_context,
                "thought": sample.context.thought_unit,
                "tenant_id": self._tenant_id,
                "user_profile": sample.context.user_profile,
                "history_summary": sample.context.history_summary,
            },
        )
        if isinstance(answer, ServiceFailure):
            return answer
        rewrite = answer.get("rewritten_query")
        if not isinstance(rewrite, str) or not rewrite.strip():
            return ServiceFailure("answer lacks rewritten_query")
        return rewrite.strip()

    async def aclose(self) -> None:
        if self._service is not None:
            await self._service.aclose()
