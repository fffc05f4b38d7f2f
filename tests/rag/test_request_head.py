"""Heads of requests that have no end, or never come."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any
from urllib.parse import urlsplit

import pytest

from rag.service.request_head import RequestHeadLimits
from tests.support.asgi_server import AsgiServer
from tests.support.raw_http import exchange, head


@contextmanager
def listening(protocol: type[RequestHeadLimits]) -> Iterator[tuple[str, int]]:
    """Yield where an app listens that answers 204 to everything."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with AsgiServer(app, http=protocol, lifespan="off") as server:
        address = urlsplit(server.url)
        assert address.hostname and address.port
        yield address.hostname, address.port


def connected(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=30)


def floods() -> dict[str, Iterable[bytes]]:
    """Heads without an end, up to 50 MB; the last is in the trailers of a body."""
    begun = head("POST", "/", "Content-Type: application/json")[:-2]
    chunked = head("POST", "/", "Content-Type: application/json", "Transfer-Encoding: chunked")
    return {
        "one long header": chain([begun, b"X-Long: "], repeat(b"a" * 50_000, 1000)),
        "many headers": chain([begun], repeat(b"X-Many: a\r\n" * 5000, 1000)),
        "a long address": chain([b"GET /"], repeat(b"a" * 50_000, 1000)),
        "a long name": chain([begun], repeat(b"a" * 50_000, 1000)),
        "trailers": chain([chunked, b"2\r\n{}\r\n0\r\n"], repeat(b"X-Many: a\r\n" * 5000, 1000)),
    }


@pytest.mark.parametrize("flood", floods())
def test_a_flood_of_headers_is_cut_off(flood: str) -> None:
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for piece in floods()[flood]:
            sent += len(piece)
            yield piece

    with listening(RequestHeadLimits) as (host, port):
        # 0: reset before the answer was read. Trailers come when the app has answered already.
        assert exchange(f"http://{host}:{port}", b"", counted())[0] in (400, 204, 0)
    assert sent < 20_000_000  # what the sockets hold, not the whole


def test_a_head_within_the_limit_is_answered() -> None:
    headers = [f"X-{n}: {'a' * 500}" for n in range(100)]
    with listening(RequestHeadLimits) as (host, port):
        assert exchange(f"http://{host}:{port}", head("POST", "/", *headers, "Content-Length: 5") + b"12345")[0] == 204


@pytest.mark.parametrize("tail", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b"X: "])
def test_an_answered_request_does_not_hold_its_connection(tail: bytes) -> None:
    """The app answers before the body is there, and the body never ends."""

    class Hasty(RequestHeadLimits):
        head_seconds = linger_seconds = 0.3

    with listening(Hasty) as address, connected(address) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + tail)
        received = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                slow.sendall(b"a")
                slow.settimeout(0.05)
                with suppress(TimeoutError):
                    piece = slow.recv(1000)
                    received += piece
                    if not piece:
                        break
            else:
                pytest.fail("still open after 10 s")
    assert tail == b"X: " or received.startswith(b"HTTP/1.1 204")


def test_a_body_that_comes_after_its_answer_leaves_the_connection_usable() -> None:
    with listening(RequestHeadLimits) as address, connected(address) as late:
        for _ in range(2):
            late.sendall(head("POST", "/", "Content-Length: 5"))
            assert late.recv(1000).startswith(b"HTTP/1.1 204")
            late.sendall(b"12345")


def test_what_comes_after_its_answer_is_read_piece_by_piece() -> None:
    class Patient(RequestHeadLimits):
        discard_seconds = linger_seconds = 20.0

    with listening(Patient) as address, connected(address) as flood:
        flood.sendall(head("POST", "/", "Content-Length: 500000000"))
        assert flood.recv(1000).startswith(b"HTTP/1.1 204")
        flood.settimeout(2)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 200_000_000:
                sent += flood.send(b"a" * 100_000)
    assert sent < 50_000_000  # one piece, and what the sockets hold


def test_a_large_body_that_was_answered_early_is_taken_all_the_same() -> None:
    with listening(RequestHeadLimits) as address, connected(address) as late:
        late.sendall(head("POST", "/", "Content-Length: 10000000") + b"a" * 10_000_000)
        assert late.recv(1000).startswith(b"HTTP/1.1 204")


def test_an_answer_that_nobody_takes_ends_its_connection() -> None:
    class Hasty(RequestHeadLimits):
        idle_seconds = 0.3

    ended = threading.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"a" * 100_000, "more_body": True})
        ended.set()  # nothing waits for a client that is gone

    with AsgiServer(app, http=Hasty, lifespan="off") as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as lazy:
            lazy.sendall(head("GET", "/"))
            assert ended.wait(20)


def test_an_answer_that_is_taken_slowly_comes_whole() -> None:
    class Hasty(RequestHeadLimits):
        idle_seconds = 0.3

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a" * 12_000_000})

    with AsgiServer(app, http=Hasty, lifespan="off") as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as slow:
            slow.sendall(head("GET", "/", "Connection: close"))
            received = 0
            while piece := slow.recv(400_000):
                received += len(piece)
                time.sleep(0.03)
    assert received > 12_000_000


def test_a_connection_that_never_completes_a_head_is_closed() -> None:
    class Hasty(RequestHeadLimits):
        head_seconds = 0.5

    with listening(Hasty) as address, connected(address) as silent, connected(address) as busy:
        for _ in range(8):  # longer than `head_seconds` in all: each request has its own
            busy.sendall(head("GET", "/"))
            assert busy.recv(1000).startswith(b"HTTP/1.1 204")
            time.sleep(0.1)
        busy.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert (busy.recv(1), silent.recv(1)) == (b"", b"")
