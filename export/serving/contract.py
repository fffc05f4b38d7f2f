"""What callers send: the deployed rewriter's contract (docs/contracts.md), with bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, StringConstraints

from reward.records.sample import Context, Metadata, Sample
from reward.settings.recipe import TenantSettings


def _empty(value: Any) -> Any:
    return "" if value is None else value


def _text(longest: int) -> Any:
    return Annotated[str, BeforeValidator(_empty), StringConstraints(max_length=longest)]


class RewriteRequest(BaseModel):
    """`session_id` and `user_id` are additions: what keeps its arm in an experiment. Lengths in characters."""

    query: Annotated[str, StringConstraints(max_length=2000, pattern=r"\S")]
    history: _text(20_000) = ""  # type: ignore[valid-type]
    thought: _text(20_000) = ""  # type: ignore[valid-type]
    tenant_id: _text(64) = ""  # type: ignore[valid-type]
    user_profile: _text(4000) = ""  # type: ignore[valid-type]
    history_summary: _text(4000) = ""  # type: ignore[valid-type]
    session_id: _text(200) = ""  # type: ignore[valid-type]
    user_id: _text(200) = ""  # type: ignore[valid-type]

    @property
    def unit(self) -> str:
        """The user, else the session, else ""."""
        return self.user_id or self.session_id

    def sample(self, tenant: TenantSettings) -> Sample:
        """Return the request as a sample, its texts as they came."""
        return Sample(
            sample_id="live",
            original_query=self.query,
            context=Context(
                user_profile=self.user_profile,
                history_summary=self.history_summary,
                history_context=self.history,
                thought_unit=self.thought,
            ),
            metadata=Metadata(source="production_log", tenant_id=tenant.tenant_id),
        )
