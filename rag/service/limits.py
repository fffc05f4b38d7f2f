"""How many requests a tenant may send in a minute."""

from __future__ import annotations

import math
import time

from fastapi import HTTPException
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter


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
