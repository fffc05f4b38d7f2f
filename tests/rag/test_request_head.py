"""Heads of requests that have no end, or never come."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
