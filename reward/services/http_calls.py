"""One way to call a JSON service: its limits kept, retries with jittered back-off, failures as values."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import select
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import aiohttp
import yarl

from guard.service_url import without_credentials
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.files import BadInput
from reward.records.strict_json import read_object
from reward.services.attempts import Attempt, call_service
from reward.services.limits import Limiter
from reward.services.refusals import failure_of_status, wait_asked
from reward.settings.services import ServiceSettings

# Just below the 5 s after which common servers close an idle connection: one must not be reused at that very moment.
KEEP_ALIVE_SECONDS = 4.0
# Failures that another attempt may not have.
PASSING = frozenset({FailureKind.TIMEOUT, FailureKind.CONNECTION, FailureKind.RATE_LIMITED, FailureKind.SERVER_ERROR})
# Says what is wrong with an answer that another attempt may give right.
Check = Callable[[dict[str, Any]], ServiceFailure | None]


class QuietConnector(aiohttp.TCPConnector):
    """Reuse a connection only if nothing has arrived on it since its last answer.

    HTTP/1.1 pairs answers with requests by their order alone: a second answer that a service sends unasked would be
    taken for the answer to the next request. A connection that holds one is closed instead.
    """

    def __init__(self, **options: Any):
        super().__init__(keepalive_timeout=KEEP_ALIVE_SECONDS, **options)
        self._used: WeakSet[Any] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            fresh = protocol not in self._used
            # A fresh TLS connection may hold session tickets, which are no answer.
            if not _has_spoken(connection, looks_at_socket=not (fresh and req.is_ssl())):
                if protocol is not None:
                    self._used.add(protocol)
                return connection
            connection.close()
            if fresh:
                raise aiohttp.ClientConnectionError("the service sent data before it was asked")


def _has_spoken(connection: aiohttp.connector.Connection, *, looks_at_socket: bool) -> bool:
    """Say whether data has arrived on a connection that nothing was asked on: parsed, or still in its socket."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return True
    socket = transport.get_extra_info("socket")
    if not looks_at_socket or socket is None or socket.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


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
            "Accept-Encoding": "identity",  # within one network, packing costs more than it saves
        }
        self._key = read_api_key(settings.api_key_env, url) if settings.api_key_env else ""
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._session: aiohttp.ClientSession | None = None  # made inside the event loop
        self._limiter = Limiter(settings.max_concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self._settings = settings
        self.calls = 0

    async def post(
        self, path: str, body: dict[str, Any], *, priority: float = 0.0, check: Check | None = None
    ) -> tuple[dict[str, Any] | ServiceFailure, CallTrace]:
        """Return the answer's JSON object, or the failure of the last attempt; and how the call went.

        408, 409, 425, 429, 499, 5xx, time-outs and connection trouble are retried, without a slot during the back-off.
        Any other status but 200, and an answer that is too long or no JSON object, fail at once. A `Retry-After` holds
        back the whole service.

        Args:
            check: what it finds wrong with an answer is retried too.
        """
        url = yarl.URL(self._url + path)
        payload = json.dumps(body).encode()

        async def send() -> Attempt:
            self.calls += 1
            return await self._send(url, payload, check)

        return await call_service(self._settings, self._limiter, send, priority=priority)

    async def _send(self, url: yarl.URL, payload: bytes, check: Check | None) -> Attempt:
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
        if response.status != 200:
            failure = failure_of_status(response.status, content or b"", response.headers, self._key)
            again = failure.kind in PASSING
            if again:
                self._limiter.hold_back(wait_asked(response.headers))
            return Attempt(failure, seconds, again)
        if content is None:
            reason = f"answer is longer than {self._settings.max_answer_bytes} bytes"
            return Attempt(ServiceFailure(reason, FailureKind.MALFORMED), seconds, again=False)
        answer = parse_object(content)
        if check is not None and isinstance(answer, dict) and (wrong := check(answer)) is not None:
            return Attempt(wrong, seconds, again=True)
        return Attempt(answer, seconds, again=False)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Read the unpacked content; return None as soon as it proves longer than `max_answer_bytes`."""
        content = bytearray()
        async for part in response.content.iter_any():
            content += part
            if len(content) > self._settings.max_answer_bytes:
                return None
        return bytes(content)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=QuietConnector(limit=self._settings.max_concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `_send` times the whole attempt
                trust_env=False,  # a proxy meant for the internet must not swallow calls within one network
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
        return ServiceFailure(f"answer: {error}", FailureKind.MALFORMED)


def _checked_url(url: str) -> str:
    try:
        parsed = yarl.URL(url)
        (parsed.host or "").encode("idna")
    except ValueError as error:
        raise BadInput(f"{without_credentials(url)}: not a URL ({without_credentials(str(error))})") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadInput(f"{without_credentials(url)}: not an http(s) URL")
    return url


def check_proxies() -> None:
    """Check the proxies that the environment names.

    Raises:
        BadInput: one of them is no HTTP proxy (names the variable; its credentials are not shown).
    """
    for scheme in ("http", "https", "all"):
        for variable in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY"):
            value = os.environ.get(variable, "")
            if value and not _is_http_proxy(value):
                shown = without_credentials(value)
                raise BadInput(
                    f"environment variable {variable}: {shown!r} is no HTTP proxy (http://host:port); "
                    "unset it, or set rewriter.judge.proxy_from_env=false"
                )


def _is_http_proxy(value: str) -> bool:
    if re.search(r"\s", value):
        return False
    try:
        proxy = yarl.URL(value if "://" in value else f"http://{value}")
        return proxy.scheme in ("http", "https") and bool(proxy.host) and proxy.port is not None
    except ValueError:
        return False


def read_api_key(variable: str, url: str) -> str:
    """Return the key of the service at `url`, without surrounding blanks.

    Raises:
        BadInput: the environment variable is not set, or what it holds cannot be a key (the key is not shown).
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BadInput(f"environment variable {variable} (API key of {url}) is not set")
    if not key.isascii() or not key.isprintable():
        raise BadInput(f"environment variable {variable} (API key of {url}) holds characters no key has")
    return key
