"""A stopping service finishes what it has begun: SIGTERM or Ctrl-C lets no new request in, /healthz says so to load
balancers, and the process ends when the last running request is answered."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp, Receive, Scope, Send

from guard.web.problem import send_problem

DRAIN_SECONDS = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InFlight:
    """How many requests are being answered, and whether the service is stopping."""

    def __init__(self) -> None:
        self.requests = 0
        self.draining = False
        self._idle = asyncio.Event()

    def begin(self) -> None:
        self.requests += 1
        self._idle.clear()

    def end(self) -> None:
        self.requests -= 1
        if self.requests == 0:
            self._idle.set()

    def drain_on_signals(self) -> None:
        """Put itself before the server's own handlers, which would close the listener at once. A second signal goes
        straight to them. Only the main thread can do this; elsewhere nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            server_handler = signal.getsignal(number)
            if callable(server_handler):
                signal.signal(number, self._handler(loop, server_handler))

    def _handler(
        self, loop: asyncio.AbstractEventLoop, server_handler: Callable[[int, FrameType | None], object]
    ) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if self.draining:
                server_handler(number, frame)
                return
            self.draining = True
            loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain(lambda: server_handler(number, None))))

        return handle

    async def _drain(self, stop: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.requests:
                    await self._idle.wait()
        except TimeoutError:
            pass
        stop()


class Draining:
    """ASGI middleware that counts what is in flight."""

    def __init__(self, app: ASGIApp, in_flight: InFlight):
        self._app = app
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        if self._in_flight.draining:
            await send_problem(send, 503, "the service is stopping", close=True)
            return
        self._in_flight.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight.end()
