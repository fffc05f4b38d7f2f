"""One way to call a JSON service: its limits kept, retries with jittered back-off, failures as values."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import time
from typing import Any

import aiohttp
import yarl

from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.files import BadInput
from reward.records.strict_json import read_object
from reward.services.attempts import Attempt, call_service, retry_after
from reward.services.limits import Limiter
from reward.settings.recipe import ServiceSettings

# Just below the 5 s after which common servers close an idle connection: one must not be reused at that very moment.
_KEEP_ALIVE_SECONDS = 4.0


class JsonService:
    """POSTs JSON to one base URL. Use it from a single event loop; close it with `aclose`.

    `calls` counts the HTTP requests sent, retries included.

    Raises:
        BadInput: no http(s) URL, or its API key is not set or cannot be one.
    """

    def __init__(self, url: str, settings: ServiceSettings):
        self._url = _checked_url(url).rstrip("/")
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # on one's own network, packing costs more than it saves
        }
        if settings.api_key_env:
            self._headers["Authorization"] = f"Bearer {read_api_key(settings.api_key_env, url)}"
        self._session: aiohttp.ClientSession | None = None  # made inside the event loop
        self._limiter = Limiter(settings.max_concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self._settings = settings
        self.calls = 0

    async def post(
        self, path: str, body: dict[str, Any], *, priority: float = 0.0
    ) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
        """Return the answer's JSON object, or the failure of the last attempt; and how the call went.

        429, 5xx, time-outs and connection trouble are retried, without a slot during the back-off. Any other status
        but 200, and an answer that is too long or no JSON object, fail at once. A `Retry-After` holds back the whole
        service.
        """
        url = yarl.URL(self._url + path)
        payload = json.dumps(body).encode()

        async def send() -> Attempt:
            self.calls += 1
            return await self._send(url, payload)

        return await call_service(self._settings, self._limiter, send, priority=priority)

    async def _send(self, url: yarl.URL, payload: bytes) -> Attempt:
        started = time.perf_counter()
        try:
            async with (
                asyncio.timeout(self._settings.timeout),
                self._client().post(url, data=payload, headers=self._headers, allow_redirects=False) as response,
            ):
                content = await self._read(response)
        except TimeoutError:
            reason = f"Timeout: no whole answer within {self._settings.timeout:g} s"
            return Attempt(ServiceFailure(reason, FailureKind.TIMEOUT), time.perf_counter() - started, again=True)
        except (aiohttp.ClientError, ConnectionError) as error:  # and content that cannot be unpacked
            reason = f"{type(error).__name__} {error}".strip()
            return Attempt(ServiceFailure(reason, FailureKind.CONNECTION), time.perf_counter() - started, again=True)
        seconds = time.perf_counter() - started
        if response.status == 200:
            if content is None:
                reason = f"answer is longer than {self._settings.max_answer_bytes} bytes"
                return Attempt(ServiceFailure(reason, FailureKind.MALFORMED), seconds, again=False)
            return Attempt(parse_object(content), seconds, again=False)
        failure = failure_of_status(response.status, content or b"")
        again = failure.kind in (FailureKind.RATE_LIMITED, FailureKind.SERVER_ERROR)
        if again:
            self._limiter.hold_back(retry_after(response.headers.get("Retry-After")))
        return Attempt(failure, seconds, again)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The unpacked content; None as soon as it proves longer than `max_answer_bytes`."""
        content = bytearray()
        async for part in response.content.iter_any():
            content += part
            if len(content) > self._settings.max_answer_bytes:
                return None
        return bytes(content)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.max_concurrency, keepalive_timeout=_KEEP_ALIVE_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `_send` times the whole attempt
                trust_env=False,  # a proxy meant for the internet must not swallow calls on one's own network
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def parse_object(content: bytes) -> dict[str, Any] | ServiceFailure:
    """Read the JSON object in `content`: UTF-8, and as strict as `read_object`."""
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        return ServiceFailure("answer is not UTF-8", FailureKind.MALFORMED)
    try:
        return read_object(text)
    except ValueError as error:
        return ServiceFailure(f"answer {_with_verb(str(error))}", FailureKind.MALFORMED)


def _with_verb(reason: str) -> str:
    return reason if reason.startswith("holds") else f"is {reason}"


def failure_of_status(status: int, content: bytes) -> ServiceFailure:
    """What an HTTP status other than 200 means; `content` is quoted where the request was refused."""
    if status == 429:
        return ServiceFailure("HTTP 429", FailureKind.RATE_LIMITED)
    if status >= 500:
        return ServiceFailure(f"HTTP {status}", FailureKind.SERVER_ERROR)
    kind = FailureKind.MALFORMED  # a redirect, or a success without the promised answer
    if status >= 400:
        kind = FailureKind.NOT_AUTHORISED if status in (401, 403) else FailureKind.REJECTED
    told = " ".join(content[:800].decode(errors="replace")[:200].split())
    return ServiceFailure(f"HTTP {status}: {told}", kind)


def _checked_url(url: str) -> str:
    try:
        parsed = yarl.URL(url)
        (parsed.host or "").encode("idna")
    except ValueError as error:
        raise BadInput(f"{url}: not a URL ({error})") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadInput(f"{url}: not an http(s) URL")
    return url


def read_api_key(variable: str, url: str) -> str:
    """The key of the service at `url`, without surrounding blanks.

    Raises:
        BadInput: the environment variable is not set, or what it holds cannot be a key (the key is not shown).
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BadInput(f"environment variable {variable} (API key of {url}) is not set")
    if not key.isascii() or not key.isprintable():
        raise BadInput(f"environment variable {variable} (API key of {url}) holds characters no key has")
    return key
