"""Tenants share what the process has one of by turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class FairShares:
    """Places for one kind of work. A tenant holds one at most, and its further work waits behind its own: among the
    tenants that wait, each is next in its turn, however much it has to do. Use it on one event loop."""

    def __init__(self, places: int):
        self._places = asyncio.Semaphore(places)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, tenant_id: str) -> AsyncIterator[None]:
        own = self._own.get(tenant_id)
        if own is None:
            own = self._own[tenant_id] = asyncio.Semaphore()
        async with own, self._places:
            yield
