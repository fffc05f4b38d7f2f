"""An OpenAI-compatible chat API under a judge's profile: question in, validated answer or failure out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import httpx2
import openai

from reward.judge.costs import attempt_tokens, reported_usage
from reward.judge.protocol import Question, parse_completion, request_body
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.services.attempts import Attempt, call_service, retry_after
from reward.services.http_calls import failure_of_status, parse_object, read_api_key
from reward.services.limits import Limiter
from reward.settings.recipe import JudgeSettings

_NO_KEY = "none"  # the client insists on a key; a server of one's own asks for none
_KEEP_ALIVE_SECONDS = 4.0  # below the 5 s after which common servers close an idle connection
# A model that wrote no verdict may write one when asked again; one that refuses would only be paid for refusing again.
_AGAIN = {
    FailureKind.TIMEOUT,
    FailureKind.CONNECTION,
    FailureKind.RATE_LIMITED,
    FailureKind.SERVER_ERROR,
    FailureKind.MALFORMED,
}


class ChatApi:
    """The official client without its retries: attempts and limits are those of every other service.

    Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the API key's environment variable is not set.
    """

    def __init__(self, settings: JudgeSettings):
        self._settings = settings
        self._limiter = Limiter(settings.max_concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=read_api_key(settings.api_key_env, settings.base_url) if settings.api_key_env else _NO_KEY,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            # aiohttp below the same client takes half the CPU time.
            http_client=openai.DefaultAioHttpClient(
                trust_env=settings.proxy_from_env,
                follow_redirects=False,
                timeout=None,  # `_send` times the whole attempt
                limits=httpx2.Limits(max_connections=settings.max_concurrency, keepalive_expiry=_KEEP_ALIVE_SECONDS),
                event_hooks={"response": [self._bound]},
            ),
        )

    async def ask(self, question: Question, priority: float) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
        """Return the answer as `question.parse` has it, or the failure of the last attempt; and the trace, with the
        tokens of every attempt: a malformed verdict was paid for too."""
        tokens = sum(attempt_tokens(self._settings, question))
        send = partial(self._send, question)
        return await call_service(self._settings, self._limiter, send, priority=priority, tokens=tokens)

    async def _send(self, question: Question) -> Attempt:
        started = time.perf_counter()
        usage = (0, 0, 0)
        try:
            async with asyncio.timeout(self._settings.timeout):
                # The client's documented way to the plain response: `chat.completions.create` spends as much time again
                # on taking the messages apart and on building objects that nobody reads.
                response = await self._client.post(
                    "/chat/completions", body=request_body(self._settings, question), cast_to=httpx2.Response
                )
            completion = parse_object(response.content)
            if isinstance(completion, ServiceFailure):
                value: dict[str, Any] | ServiceFailure = completion
            else:
                usage, value = reported_usage(completion), parse_completion(completion, question)
        except TimeoutError:
            reason = f"Timeout: no whole answer within {self._settings.timeout:g} s"
            value = ServiceFailure(reason, FailureKind.TIMEOUT)
        except openai.APIStatusError as error:
            value = failure_of_status(error.status_code, error.response.content)
            if value.kind in (FailureKind.RATE_LIMITED, FailureKind.SERVER_ERROR):
                self._limiter.hold_back(retry_after(error.response.headers.get("Retry-After")))
        except _AnswerTooLong:
            reason = f"answer is longer than {self._settings.max_answer_bytes} bytes"
            value = ServiceFailure(reason, FailureKind.MALFORMED)
        except (openai.APIConnectionError, aiohttp.ClientError) as error:
            cause = error.__cause__ or error
            value = ServiceFailure(f"{type(cause).__name__} {cause}".strip(), FailureKind.CONNECTION)
        again = isinstance(value, ServiceFailure) and value.kind in _AGAIN
        return Attempt(value, time.perf_counter() - started, again, *usage)

    async def _bound(self, response: httpx2.Response) -> None:
        stream = response.stream
        if isinstance(stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(stream, self._settings.max_answer_bytes)

    async def aclose(self) -> None:
        await self._client.close()


class _AnswerTooLong(Exception):
    pass


class _Bounded(httpx2.AsyncByteStream):
    """A response's body that is given up as soon as it proves longer than `limit` bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int):
        self._stream, self._limit = stream, limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > self._limit:
                raise _AnswerTooLong
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
