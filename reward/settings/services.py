"""How the services are reached, and how patiently."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from guard.service_url import ServiceUrl
from reward.settings.data import StrictSettings


class ServiceSettings(StrictSettings):
    """How patiently and how hard one service is called. Times in seconds.

    `timeout` is for a whole attempt, from the first byte sent to the last one read. `backoff` are the shortest and the
    longest wait between attempts. `api_key_env` names an environment variable.
    """

    timeout: float = Field(30.0, gt=0)
    attempts: int = Field(3, ge=1)
    backoff: tuple[float, float] = (0.5, 5.0)
    max_concurrency: int = Field(10, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    max_answer_bytes: int = Field(4_000_000, ge=1)
    api_key_env: str | None = None

    @model_validator(mode="after")
    def _backoff_in_order(self) -> Self:
        if not 0 <= self.backoff[0] <= self.backoff[1]:
            raise ValueError(f"backoff {list(self.backoff)}: expected two seconds, the shorter first")
        return self


class RagSettings(ServiceSettings):
    """The retrieval service: `POST {url}/api/chat/general_rag` (docs/contracts.md).

    Retrievals are kept in the ledger under `kb_version`: change it when the knowledge base changes. `score_scale` is
    that of the service's `reranker_score`: `unit` from 0 to 1, `percent` from 0 to 100, `logit` any number, of which
    the sigmoid is taken. A score outside the scale is refused, never scored.
    """

    url: ServiceUrl = "http://127.0.0.1:8000"
    kb_name: str = "default"
    kb_version: str = ""
    score_scale: Literal["unit", "percent", "logit"] = "unit"


class BaselineSettings(ServiceSettings):
    """The deployed rewriter to beat: `POST {url}/api/rewrite_query`. No url: recorded rewrites only."""

    url: ServiceUrl | None = None
    timeout: float = Field(10.0, gt=0)
    max_concurrency: int = Field(5, ge=1)
