"""What one request may cost: bytes and seconds of its body, and how many a tenant may send in a minute."""

from __future__ import annotations

import asyncio
import math
import time

from fastapi import HTTPException
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_JSON_BYTES = 1_000_000
# Read on for a while past the limit: a client that is still sending would not see the answer otherwise.
DISCARDED_LIMITS = 4
_CLOSE = {"Connection": "close"}


class BodyLimits:
    """ASGI middleware: 413 for a body that is too long as it arrives, 408 for one that takes too long."""

    def __init__(self, app: ASGIApp, max_document_bytes: int, seconds: float):
        self._app = app
        self._max_document_bytes = max_document_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_document_bytes if scope["method"] == "PUT" else MAX_JSON_BYTES
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


class Quotas:
    """Requests of each tenant in any 60 seconds, counted by this process."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def admit(self, tenant_id: str, requests_per_minute: int | None) -> None:
        """
        Raises:
            HTTPException: 429 with Retry-After, the tenant has used up its requests.
        """
        if requests_per_minute is None:
            return
        quota = RateLimitItemPerMinute(requests_per_minute)
        if await self._limiter.hit(quota, tenant_id):
            return
        window = await self._limiter.get_window_stats(quota, tenant_id)
        wait = max(1, math.ceil(window.reset_time - time.time()))
        raise HTTPException(
            429, f"more than {requests_per_minute} requests in a minute: wait {wait} s", {"Retry-After": str(wait)}
        )
