"""The two kinds of rewriters, asked once each: a model behind an OpenAI-compatible server, a service like the 32B."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from data_prep.prompt import build_messages
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_line, normalise_lines
from plain_text.thinking import without_thinking
from reward.records.call import ServiceFailure
from reward.records.sample import Sample
from reward.services.baseline_client import BaselineClient
from reward.services.http_calls import JsonService
from reward.settings.recipe import TenantSettings
from reward.settings.services import BaselineSettings, ServiceSettings

# A rewrite has a few hundred bytes; a server that sends megabytes is broken.
MAX_ANSWER_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a rewriter made of one request.

    Args:
        text: the rewrite, "" when it failed.
        failure: why, in a word of `FailureKind` or `empty`, `starting`, `overloaded`; "" when it did not.
        seconds: from the request to the whole answer.
        cut: whether it ended at the limit of new tokens.
        version: of the model that answered.
    """

    text: str
    seconds: float
    failure: str = ""
    cut: bool = False
    version: str = ""


class Rewriter(Protocol):
    """One attempt a request; failures are values. `version` names the model."""

    @property
    def version(self) -> str: ...

    async def rewrite(self, sample: Sample) -> Rewritten: ...

    async def aclose(self) -> None: ...


class ChatRewriter:
    """A model behind `POST {chat_url}/chat/completions`, asked as in training: the same messages from texts masked and
    normalised alike, thinking off, greedy."""

    def __init__(
        self, chat_url: str, tenant: TenantSettings, *, served_model: str, version: str, max_new_tokens: int,
        service: ServiceSettings,
    ):  # fmt: skip
        self.version = version
        self._service = JsonService(chat_url, service)
        self._tenant = tenant
        self._fixed: dict[str, Any] = {
            "model": served_model,
            "temperature": 0.0,
            "max_tokens": max_new_tokens,
            "chat_template_kwargs": {"enable_thinking": False},
        }

    async def rewrite(self, sample: Sample) -> Rewritten:
        """Ask for a rewrite of `sample.original_query`."""
        started = time.perf_counter()
        messages = build_messages(as_trained(sample, self._tenant), self._tenant)
        answer, _ = await self._service.post("/chat/completions", {**self._fixed, "messages": messages})
        seconds = time.perf_counter() - started
        if isinstance(answer, ServiceFailure):
            return Rewritten("", seconds, answer.kind.value, version=self.version)
        try:
            choice = answer["choices"][0]
            text = without_thinking(choice["message"]["content"] or "").strip()
        except (KeyError, IndexError, TypeError, AttributeError):
            return Rewritten("", seconds, "malformed", version=self.version)
        cut = choice.get("finish_reason") == "length"
        return Rewritten(text, seconds, "" if text else "empty", cut, self.version)

    async def aclose(self) -> None:
        await self._service.aclose()


class ContractRewriter:
    """A service that answers `POST {url}/api/rewrite_query`."""

    def __init__(self, settings: BaselineSettings, tenant_id: str, version: str):
        self.version = version
        self._client = BaselineClient(settings, tenant_id)

    async def rewrite(self, sample: Sample) -> Rewritten:
        """Ask for a rewrite of `sample.original_query`; the texts go there as they came."""
        started = time.perf_counter()
        rewrite, _ = await self._client.rewrite(sample)
        seconds = time.perf_counter() - started
        if isinstance(rewrite, ServiceFailure):
            return Rewritten("", seconds, rewrite.kind.value, version=self.version)
        return Rewritten(rewrite, seconds, version=self.version)

    async def aclose(self) -> None:
        await self._client.aclose()


def as_trained(sample: Sample, tenant: TenantSettings) -> Sample:
    """Return the sample with its texts as training data has them: normalised, personal data masked."""

    def clean(text: str, *, lines: bool = False) -> str:
        if not text:
            return ""
        return deidentify_text(normalise_lines(text) if lines else normalise_line(text), tenant.deidentify)[0]

    context = sample.context
    return sample.model_copy(
        update={
            "original_query": clean(sample.original_query),
            "context": context.model_copy(
                update={
                    "user_profile": clean(context.user_profile),
                    "history_summary": clean(context.history_summary),
                    "history_context": clean(context.history_context, lines=True),
                }
            ),
        }
    )


def one_attempt(timeout: float, max_concurrency: int, api_key_env: str | None) -> ServiceSettings:
    """Return the limits of a rewriter that a user waits for."""
    return ServiceSettings(
        timeout=timeout,
        attempts=1,
        max_concurrency=max_concurrency,
        max_answer_bytes=MAX_ANSWER_BYTES,
        api_key_env=api_key_env,
    )
