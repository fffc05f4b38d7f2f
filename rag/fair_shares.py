"""Tenants share what the process has one of by turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

ACTIVE_SECONDS = 2.0
REST = 2.0  # one tenant has a third of the time at most, while there are others


class FairShares:
    """Places for one kind of work. A tenant holds one at most, and its further work waits behind its own: among the
    tenants that wait, each is next in its turn, however much it has to do. Use it on one event loop.

    `rest`: while others were active in the last `ACTIVE_SECONDS`, a tenant waits so many times as long as it held a
    place before it has the next one. One tenant alone rests never.
    """

    def __init__(self, places: int, rest: float = 0.0):
        self._places = asyncio.Semaphore(places)
        self._rest = rest
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._latest, self._latest_at, self._other_at = "", -ACTIVE_SECONDS, -ACTIVE_SECONDS

    @asynccontextmanager
    async def place(self, tenant_id: str) -> AsyncIterator[None]:
        own = self._own.get(tenant_id)
        if own is None:
            own = self._own[tenant_id] = asyncio.Semaphore()
        await own.acquire()
        pause = 0.0
        try:
            async with self._places:
                began = time.monotonic()
                try:
                    yield
                finally:
                    pause = self._pause(tenant_id, time.monotonic() - began)
        finally:
            if pause:
                asyncio.get_running_loop().call_later(pause, own.release)
            else:
                own.release()

    def are_others_active(self, tenant_id: str) -> bool:
        """Return whether another tenant held a place in the last `ACTIVE_SECONDS`. Any thread may ask."""
        last_of_others = self._other_at if self._latest == tenant_id else self._latest_at
        return time.monotonic() - last_of_others < ACTIVE_SECONDS

    def rest_after(self, tenant_id: str, seconds: float) -> float:
        """Return how many seconds a thread of the tenant's should rest after so many of work: 0 while no other is
        active. Any thread may ask."""
        return self._rest * seconds if self.are_others_active(tenant_id) else 0.0

    def _pause(self, tenant_id: str, seconds: float) -> float:
        now = time.monotonic()
        if tenant_id != self._latest:
            self._other_at, self._latest = self._latest_at, tenant_id
        self._latest_at = now
        return self._rest * seconds if now - self._other_at < ACTIVE_SECONDS else 0.0
