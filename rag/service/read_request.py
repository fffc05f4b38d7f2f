"""Requests are understood by turns, and only those of callers with a key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from rag.fair_shares import FairShares
from rag.service.access import DifyGate, Gate
from rag.service.dify_contracts import DifyFailure

# Objects, lists and their items. A text's own brackets and commas count, too.
MOST_PARTS = 20_000
# Callers whose key is refused are one tenant together: they cannot keep the others busy.
_NOBODY = ""
_REFUSALS_APART = 0.002  # seconds


class Understood(Request):
    """A request whose JSON has a bounded number of parts: reading more would take the time of many searches."""

    async def json(self) -> Any:
        """
        Raises:
            HTTPException: 422, too many parts.
        """
        body = await self.body()
        if sum(map(body.count, (b"[", b"{", b","))) > MOST_PARTS:
            raise HTTPException(422, f"body: JSON of more than {MOST_PARTS} parts")
        return await super().json()


class KeyFirst(APIRoute):
    """A route that asks its gate before it reads the body."""

    refusals = FairShares(1)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        gates = [one.dependency for one in self.dependencies if isinstance(one.dependency, Gate | DifyGate)]

        async def ask_first(request: Request) -> Response:
            try:
                for gate in gates:
                    await gate(request)
            except (HTTPException, DifyFailure):
                async with self.refusals.place(_NOBODY):
                    await asyncio.sleep(_REFUSALS_APART)
                raise
            return await handle(Understood(request.scope, request.receive))

        return ask_first
