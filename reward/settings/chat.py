"""A language model behind an OpenAI-compatible chat API: how it is reached, what its server accepts, what it costs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from guard.service_url import ServiceUrl
from reward.settings.data import StrictSettings
from reward.settings.services import ServiceSettings


class PriceSettings(StrictSettings):
    """Price of a model per million tokens, in the currency its provider bills in."""

    currency: Literal["CNY", "USD"]
    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)


class ChatSettings(ServiceSettings):
    """The profile of a model.

    Args:
        version: of the model as served; part of every ledger key, so that a new version is asked anew.
        token_limit: the request's name for the cap on output tokens (GPT-5 refuses `max_tokens`).
        max_output_tokens: the cap; a reasoning model counts its reasoning against it.
        temperature: `None` where the model refuses one (GPT-5).
        thinking: turns a Qwen3's thinking on or off (vLLM and SGLang); `None` says nothing of it.
        response_format: plain text, JSON mode, or a JSON schema the server decodes under.
        proxy_from_env: whether HTTPS_PROXY and its like apply: on the way to a provider on the internet.
        price: `None` where it is not known.
    """

    model: str
    version: str = ""
    base_url: ServiceUrl
    timeout: float = Field(60.0, gt=0)
    backoff: tuple[float, float] = (2.0, 10.0)
    max_concurrency: int = Field(5, ge=1)
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_output_tokens: int = Field(500, ge=1)
    temperature: float | None = Field(0.1, ge=0, le=2)
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    thinking: bool | None = None
    response_format: Literal["text", "json_object", "json_schema"] = "text"
    proxy_from_env: bool = False
    price: PriceSettings | None = None

    @property
    def service(self) -> str:
        """Model and version, as the ledger names them."""
        return f"{self.model}@{self.version}" if self.version else self.model
