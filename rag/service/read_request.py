"""Requests are understood by turns, and only those of callers with a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from rag.fair_shares import FairShares
from rag.service.access import DifyGate, Gate
from rag.service.dify_contracts import DifyFailure
from rag.service.request_log import record_of

# Objects, lists and their items. A text's own brackets and commas count, too.
MOST_PARTS = 20_000
SHORT_BODY = 20_000  # bytes
# Callers whose key is refused are one tenant together: they cannot keep the others busy.
_NOBODY = ""
_REFUSALS_APART = 0.002  # seconds


class Understood(Request):
    """A request whose JSON has a bounded number of parts: reading more would take the time of many searches. Long
    bodies are read by turns of their tenants."""

    def __init__(self, request: Request, long_bodies: FairShares):
        super().__init__(request.scope, request.receive)
        self._long_bodies = long_bodies

    async def json(self) -> Any:
        """
        Raises:
            HTTPException: 422, too many parts.
        """
        body = await self.body()
        if len(body) <= SHORT_BODY:
            return await self._parsed(body)
        access = record_of(self.scope).access
        async with self._long_bodies.place(access.tenant_id if access else _NOBODY):
            await asyncio.sleep(0)  # others come first
            return await self._parsed(body)

    async def _parsed(self, body: bytes) -> Any:
        # NumPy counts many of them ten times as fast as `bytes.count`, and without the interpreter's lock.
        characters = np.frombuffer(body, np.uint8)
        if sum(int(np.count_nonzero(characters == part)) for part in b"[{,") > MOST_PARTS:
            raise HTTPException(422, f"body: JSON of more than {MOST_PARTS} parts")
        return await super().json()


class KeyFirst(APIRoute):
    """A route that asks its gate, of which it has one, before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        [gate] = [one.dependency for one in self.dependencies if isinstance(one.dependency, Gate | DifyGate)]

        async def ask_first(request: Request) -> Response:
            try:
                await gate(request)
            except (HTTPException, DifyFailure):
                async with gate.refusals.place(_NOBODY):
                    await asyncio.sleep(_REFUSALS_APART)
                raise
            return await handle(Understood(request, gate.long_bodies))

        return ask_first
