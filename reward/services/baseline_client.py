"""The rewriter to beat: its recorded rewrite first, `POST {url}/api/rewrite_query` for what is missing."""

from __future__ import annotations

from guard.personal.masking import mask_message
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.rewrite_pair import rewrite_in
from reward.records.sample import Sample
from reward.services.http_calls import JsonService
from reward.services.refusals import refusal_in
from reward.settings.services import BaselineSettings


class BaselineClient:
    """Use it from a single event loop; close it with `aclose`."""

    def __init__(self, settings: BaselineSettings, tenant_id: str):
        self._tenant_id = tenant_id
        self._service = JsonService(settings.url, settings) if settings.url else None

    @property
    def calls(self) -> int:
        """Count the HTTP requests sent so far, retries included."""
        return self._service.calls if self._service else 0

    async def rewrite(self, sample: Sample, *, priority: float = 0.0) -> tuple[str | ServiceFailure, CallTrace]:
        """Return the baseline's rewrite of `sample.original_query` and how the call went (no attempts for a recorded
        rewrite). A missing answer is a failure, never the query itself."""
        if sample.candidates.baseline:
            return sample.candidates.baseline, CallTrace()
        if self._service is None:
            reason = "no recorded rewrite and no baseline url configured"
            return ServiceFailure(reason, FailureKind.NOT_CONFIGURED), CallTrace()
        answer, trace = await self._service.post(
            "/api/rewrite_query",
            {
                "query": sample.original_query,
                "history": sample.context.history_context,
                "thought": sample.context.thought_unit,
                "tenant_id": self._tenant_id,
                "user_profile": sample.context.user_profile,
                "history_summary": sample.context.history_summary,
            },
            priority=priority,
        )
        if isinstance(answer, ServiceFailure):
            return answer, trace
        rewrite = answer.get("rewritten_query")
        if not isinstance(rewrite, str) or not rewrite.strip():
            return refusal_in(answer, "answer lacks rewritten_query"), trace
        return mask_message(rewrite_in(answer).strip()), trace  # it may know of a person what it was not asked

    async def aclose(self) -> None:
        if self._service is not None:
            await self._service.aclose()
