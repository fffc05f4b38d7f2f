"""An OpenAI-compatible chat API under a model's profile: question in, validated answer or failure out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from reward.judge.costs import attempt_tokens, booked_usage
from reward.judge.protocol import Question, parse_completion, request_body
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.services.attempts import Attempt, call_service
from reward.services.http_calls import PASSING, QuietConnector, check_proxies, parse_object, read_api_key
from reward.services.limits import Limiter
from reward.services.refusals import failure_in_answer, failure_of_status, may_be_billed, wait_asked
from reward.settings.chat import ChatSettings

_NO_KEY = "none"  # the client insists on a key; a server of the user's own asks for none
# A model that wrote no verdict may write one when asked again; one that refuses would only be paid for refusing again.
_AGAIN = PASSING | {FailureKind.MALFORMED}
# The client adds headers out of OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS, and some about this
# machine. They concern OpenAI alone.
_OPENAI = "api.openai.com"
_SENT_TO_ALL = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "user-agent"}
)
# Takes each attempt as it ends, and the body of the service's answer, empty where none came.
OnAttempt = Callable[[Attempt, bytes], None]
_log = logging.getLogger(__name__)


class ChatApi:
    """The official client without its retries: attempts and limits are those of every other service.

    Use it from a single event loop; close it with `aclose`.

    Raises:
        BadInput: the API key's environment variable is not set, or a proxy in the environment is none.
    """

    def __init__(self, settings: ChatSettings):
        if settings.proxy_from_env:
            check_proxies()
        self._settings = settings
        self._limiter = Limiter(settings.max_concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self._key = read_api_key(settings.api_key_env, settings.base_url) if settings.api_key_env else _NO_KEY
        self._secret = self._key if settings.api_key_env else ""
        self._is_foreign = urlsplit(settings.base_url).hostname != _OPENAI
        self._has_warned = False
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=self._key,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            # aiohttp below the same client takes half the CPU time.
            http_client=_QuietClient(
                trust_env=settings.proxy_from_env,
                follow_redirects=False,
                timeout=None,  # `_send` times the whole attempt
                limits=httpx2.Limits(max_connections=settings.max_concurrency),
                event_hooks={"request": [self._keep_private], "response": [self._bound]},
            ),
        )

    async def ask(
        self, question: Question, priority: float, on_attempt: OnAttempt | None = None
    ) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
        """Return the answer as `question.parse` has it, or the failure of the last attempt; and the trace, with the
        tokens of every attempt: a malformed verdict was paid for too."""
        tokens = sum(attempt_tokens(self._settings, question))
        send = partial(self._send, question, on_attempt)
        value, trace = await call_service(self._settings, self._limiter, send, priority=priority, tokens=tokens)
        if trace.estimated and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%s: a call ended without usable token counts; such calls are booked at the most they can cost "
                "(`estimated` in the ledger)",
                self._settings.model,
            )
        return value, trace

    async def _send(self, question: Question, on_attempt: OnAttempt | None) -> Attempt:
        started = time.perf_counter()
        content = b""
        most = attempt_tokens(self._settings, question)
        # Until the service says what it used, an attempt may have cost all that it can.
        usage, estimated = (most[0], 0, most[1]), True
        body = request_body(self._settings, question) | {"stream": False}  # some relays stream unless told not to
        try:
            async with asyncio.timeout(self._settings.timeout):
                # The client's documented way to the plain response: `chat.completions.create` spends as much time again
                # on taking the messages apart and on building objects that nobody reads.
                response = await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            content = response.content
            value = parse_object(content)
            if not isinstance(value, ServiceFailure):
                usage, estimated = booked_usage(value, most)
                value = failure_in_answer(value, self._secret) or parse_completion(value, question)
        except TimeoutError:
            reason = f"Timeout: no whole answer within {self._settings.timeout:g} s"
            value = ServiceFailure(reason, FailureKind.TIMEOUT)
        except openai.APIStatusError as error:
            content = error.response.content
            value = failure_of_status(error.status_code, content, error.response.headers, self._secret)
            if not may_be_billed(error.status_code):
                usage, estimated = (0, 0, 0), False
            if value.kind in PASSING:
                self._limiter.hold_back(wait_asked(error.response.headers))
        except _AnswerTooLong:
            reason = f"answer is longer than {self._settings.max_answer_bytes} bytes"
            value = ServiceFailure(reason, FailureKind.MALFORMED)
        except (openai.APIConnectionError, aiohttp.ClientError) as error:
            cause = error.__cause__ or error
            value = ServiceFailure(f"{type(cause).__name__} {cause}".strip(), FailureKind.CONNECTION)
            # Nothing was sent. The transport calls a refused connection a time-out of connecting.
            if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | aiohttp.ClientConnectorError):
                usage, estimated = (0, 0, 0), False
        again = isinstance(value, ServiceFailure) and value.kind in _AGAIN
        attempt = Attempt(value, time.perf_counter() - started, again, *usage, estimated)
        if on_attempt is not None:
            on_attempt(attempt, content)
        return attempt

    async def _keep_private(self, request: httpx2.Request) -> None:
        """Take out what the environment says for OpenAI when somebody else is asked."""
        if not self._is_foreign:
            return
        for name in [name for name in request.headers if name.lower() not in _SENT_TO_ALL]:
            del request.headers[name]
        request.headers["Authorization"] = f"Bearer {self._key}"

    async def _bound(self, response: httpx2.Response) -> None:
        stream = response.stream
        if isinstance(stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(stream, self._settings.max_answer_bytes)

    async def aclose(self) -> None:
        await self._client.close()


class _QuietClient(openai.DefaultAioHttpClient):
    """The client's own transports, over connections that are never reused once something unasked has arrived."""

    def _init_transport(self, **options: Any) -> Any:  # type: ignore[override]
        return _quiet(super()._init_transport(**options))

    def _init_proxy_transport(self, proxy: httpx2.Proxy, **options: Any) -> Any:  # type: ignore[override]
        return _quiet(super()._init_proxy_transport(proxy, **options))


def _quiet(transport: Any) -> Any:
    def session() -> aiohttp.ClientSession:
        connector = QuietConnector(limit=transport.limits.max_connections, ssl=transport.ssl_context)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    transport.client = session  # made inside the event loop
    return transport


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
