"""Every call to a service goes through here, and the same call goes out once.

Memory -> the same call under way -> ledger -> budget -> the call itself -> ledger. What is asked for again is answered
from memory or ledger; what is asked for meanwhile waits for the call under way. Failures are recorded and returned,
never kept: the next one to ask calls again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cachetools import LRUCache

from reward.ledger.ledger import Ledger
from reward.records.call import Answer, Call, CallTrace, ServiceFailure

Perform = Callable[[], Awaitable[tuple[dict[str, Any] | ServiceFailure, CallTrace]]]


class Calls:
    """One per ledger and event loop. The last `memory` answers are kept in memory, the rest are found in the ledger."""

    def __init__(self, ledger: Ledger, memory: int = 10_000):
        self._ledger = ledger
        self._memory: LRUCache[str, dict[str, Any]] = LRUCache(memory)
        self._in_flight: dict[str, asyncio.Task[Answer]] = {}

    async def once(self, call: Call, perform: Perform, cost: Callable[[CallTrace], float] | None = None) -> Answer:
        """The answer to `call`, made by `perform` only when nobody has it or is asking for it.

        A cancelled asker leaves the call running: it is paid for, others may wait for it, and it will be recorded.
        An answer is shared by all who asked and must not be changed.

        Args:
            cost: yuan for a finished call; without it calls are free.

        Returns:
            An answer made, stored or joined. When a budget is spent: a `BUDGET_SPENT` failure with no attempts in its
            trace, and no row in the ledger, for no call was made.

        Raises:
            BadInput: the ledger cannot be read or written; see `reward.ledger.ledger`.
            Exception: whatever `perform` raises, to all who wait for it; nothing is recorded, nothing stays reserved.
        """
        if (kept := self._memory.get(call.key)) is not None:
            return Answer(call.kind, kept, "stored")
        if (under_way := self._in_flight.get(call.key)) is not None:
            answer = await asyncio.shield(under_way)
            return Answer(call.kind, answer.value, "joined")
        if (found := self._ledger.find(call.key)) is not None:
            self._memory[call.key] = found
            return Answer(call.kind, found, "stored")
        if (refusal := self._ledger.reserve(call)) is not None:
            return Answer(call.kind, refusal, "made")
        task = asyncio.create_task(self._make(call, perform, cost))
        self._in_flight[call.key] = task
        # Not at the end of `_make`: a task cancelled before its first step never gets there.
        task.add_done_callback(lambda ended: self._end(call, ended))
        return await asyncio.shield(task)

    def keep_passages(self, passages: Mapping[str, str]) -> None:
        """Keep contents of retrieved passages in the ledger; see `Ledger.keep_passages`."""
        self._ledger.keep_passages(passages)

    async def _make(self, call: Call, perform: Perform, cost: Callable[[CallTrace], float] | None) -> Answer:
        value, trace = await perform()
        yuan = cost(trace) if cost else 0.0
        self._ledger.record(call, value, trace, yuan)
        if not isinstance(value, ServiceFailure):
            self._memory[call.key] = value
        return Answer(call.kind, value, "made", trace, yuan)

    def _end(self, call: Call, task: asyncio.Task[Answer]) -> None:
        del self._in_flight[call.key]
        if task.cancelled() or task.exception():
            self._ledger.release(call)
