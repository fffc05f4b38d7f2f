"""What a connection may cost, beside its bodies: heads, time, and answers that nobody takes; the server itself knows no
limit."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64_000
LEAST_TAKEN = 30_000  # bytes
MOST_WAITING = 8  # requests on one connection, behind the one that is being answered


class Refused(Exception):
    pass


class RequestHeadLimits(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 that answers 400 to a head (or trailers) of more than `MAX_HEAD_BYTES`, and closes a
    connection

    - on which no request has begun or a head is not complete after `head_seconds`,
    - whose request is not complete `linger_seconds` after its answer,
    - whose client took less than `LEAST_TAKEN` bytes of an answer in `idle_seconds`.

    Without it one caller fills the memory with a single header, or takes all file descriptors by connections on which
    hardly anything moves. `uvicorn.Config(app, http=RequestHeadLimits)`.
    """

    head_seconds = 30.0
    linger_seconds = 2.0
    idle_seconds = 30.0
    # What comes of a body that is answered already is read no faster than a piece in so many seconds.
    discard_seconds = 0.005

    _head_bytes = 0
    # Since the parser last told of something whole: what it keeps of an unfinished header.
    _kept_bytes = 0
    _deadline: asyncio.TimerHandle | None = None
    _watch: asyncio.TimerHandle | None = None
    # Since the watch looked last, more of an answer could be sent.
    _taken = False
    # The request is read to its end, and the parser is in none.
    _complete = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._stop_watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._kept_bytes = 0
        self._complete = False
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
        if len(self.pipeline) > MOST_WAITING:
            raise Refused

    def on_body(self, body: bytes) -> None:
        self._kept_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete and not self.flow.read_paused:
            self.flow.pause_reading()
            self.loop.call_later(self.discard_seconds, self._read_on)

    def on_message_complete(self) -> None:
        self._kept_bytes = 0
        self._complete = True
        super().on_message_complete()
        if self.cycle.response_complete:  # it was answered before
            self._stop_clock()
            self._wait_for_the_next()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._complete and self.cycle.response_complete:
            # A client that is still sending gets the answer before its connection ends.
            self._unset_keepalive_if_required()
            self._start_clock(self.linger_seconds)
        self._watch_answer()

    def timeout_keep_alive_handler(self) -> None:
        # What is left of an answer is the watch's; after it the connection would be idle again.
        if self.transport.get_write_buffer_size():
            self._wait_for_the_next()
            return
        super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._taken = True

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _wait_for_the_next(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _watch_answer(self) -> None:
        """Look after `idle_seconds` how much of what is waiting to be sent the client has taken."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._watch is None:
            self._taken = False
            self._watch = self.loop.call_later(self.idle_seconds, self._end_unless_taken, waiting)

    def _end_unless_taken(self, waiting_before: int) -> None:
        self._watch = None
        waiting = self.transport.get_write_buffer_size()
        if waiting > max(0, waiting_before - LEAST_TAKEN) and not self._taken:
            self.transport.abort()
            return
        self._watch_answer()

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _count(self, *pieces: bytes) -> None:
        self._kept_bytes = 0
        self._head_bytes += sum(map(len, pieces))
        if self._head_bytes > MAX_HEAD_BYTES:
            raise Refused  # the parser gives up, and a 400 is sent

    def _start_clock(self, seconds: float | None = None) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds or self.head_seconds, self.transport.close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
