"""What the body of one request may cost: bytes and seconds."""

from __future__ import annotations

import asyncio

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 1_000_000
# Read on for a while past the limit: a client that is still sending would not see the answer otherwise.
DISCARDED_LIMITS = 4
_CLOSE = {"Connection": "close"}


class BodyLimits:
    """ASGI middleware: 413 for a body that is too long as it arrives, 408 for one that takes too long.

    Args:
        seconds: in which a whole body must arrive.
        max_document_bytes: of a PUT.
        max_json_bytes: of any other method.
    """

    def __init__(
        self, app: ASGIApp, *, seconds: float, max_document_bytes: int = 0, max_json_bytes: int = MAX_JSON_BYTES
    ):
        self._app = app
        self._max_document_bytes = max_document_bytes
        self._max_json_bytes = max_json_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_document_bytes if scope["method"] == "PUT" else self._max_json_bytes
        deadline = asyncio.get_running_loop().time() + self._seconds
        read = 0
        complete = False

        async def receive_limited() -> Message:
            nonlocal read, complete
            if complete:  # what comes now is the end of the connection
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
                    read += len(message.get("body", b""))
                    complete = not message.get("more_body", False)
                    if read <= limit:
                        return message
                    # Read on for a while: a client that still sends would not see the answer.
                    while not complete and read < DISCARDED_LIMITS * limit:
                        message = await receive()
                        read += len(message.get("body", b""))
                        complete = not message.get("more_body", False)
            except TimeoutError:
                complete = True
                if read <= limit:
                    problem = f"the body did not arrive within {self._seconds:g} s"
                    raise HTTPException(408, problem, _CLOSE) from None
            raise HTTPException(413, f"the body is longer than {limit} bytes", _CLOSE)

        await self._app(scope, receive_limited, send)
