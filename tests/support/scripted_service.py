"""A service on a real socket that follows a script, byte by byte: what no HTTP framework would let a server do."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


class ScriptedService:
    """Answers its n-th request with the n-th step of `script`, and all further ones with the last. Use as an async
    context manager, inside the event loop of the client that it serves.

    `bodies` are the requests' JSON bodies, `headers` their raw headers, `most_at_once` the most requests that were
    being answered at the same time.
    """

    def __init__(self, script: Sequence[Step]):
        self._script = script
        self._running = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[bytes] = []
        self.most_at_once = 0

    async def __aenter__(self) -> ScriptedService:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                headers = await reader.readuntil(b"\r\n\r\n")
                length = int(headers.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                step = self._script[min(len(self.bodies), len(self._script) - 1)]
                self.headers.append(headers)
                self.bodies.append(json.loads(await reader.readexactly(length)))
                self._running += 1
                self.most_at_once = max(self.most_at_once, self._running)
                try:
                    await step(writer)
                finally:
                    self._running -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()


def http(content: bytes | str, status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP answer. Underscores in the names of headers stand for dashes."""
    body = content.encode() if isinstance(content, str) else content
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def say(data: bytes, *, after: float = 0.0) -> Step:
    """Send `data` as it is, `after` seconds."""

    async def step(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(after)
        writer.write(data)
        await writer.drain()

    return step


def answer(value: Any, *, after: float = 0.0) -> Step:
    """Send `value` as a proper service would."""
    return say(http(json.dumps(value, ensure_ascii=False)), after=after)


def status(line: str, content: str = "no", **headers: str) -> Step:
    return say(http(content, line, **headers))


def trickle(data: bytes, *, every: float) -> Step:
    """Send `data` byte by byte, the first one at once."""

    async def step(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(every)

    return step


def hang_up(data: bytes = b"") -> Step:
    """Send `data`, then close in good order."""

    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return step


def half_close(data: bytes) -> Step:
    """Send `data`, then nothing more, yet go on listening."""

    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.write_eof()

    return step


def reset(data: bytes = b"") -> Step:
    """Send `data`, then reset the connection (RST)."""

    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)  # a reset overtakes data that is still on its way
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return step
