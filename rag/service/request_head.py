"""What the head of a request (its URL and headers) may cost; the server itself knows no limit."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64_000


class HeadTooLong(Exception):
    pass


class RequestHeadLimits(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 that answers 400 to a head (or trailers) of more than `MAX_HEAD_BYTES`, and closes a
    connection on which no request has begun or a head is not complete after `head_seconds`.

    Without it one caller fills the memory with a single header, or takes all file descriptors by connections on which
    hardly anything comes. `uvicorn.Config(app, http=RequestHeadLimits)`.
    """

    head_seconds = 30.0

    _head_bytes = 0
    # Since the parser last told of something whole: what it keeps of an unfinished header.
    _kept_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._kept_bytes = 0
        self._start_clock()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._kept_bytes = 0
        self._stop_clock()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._kept_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._kept_bytes = 0
        super().on_message_complete()

    def _count(self, *pieces: bytes) -> None:
        self._kept_bytes = 0
        self._head_bytes += sum(map(len, pieces))
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HeadTooLong  # the parser gives up, and a 400 is sent

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
