"""A service's limits, kept to exactly: concurrency, requests and tokens a minute, a queue by priority, Retry-After.

Both rates are exact sliding windows, not token buckets: within any minute at most the limit is used, and there is no
burst above it. A request counts from its start. Tokens count from the start of their slot until a minute after its end,
since providers differ on whether they charge them when a request arrives or when its answer is done.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A minute, and a second for what the network does to the times at which requests arrive.
WINDOW_SECONDS = 61.0


class Limiter:
    """The limits of one service. Use it from a single event loop.

    Slots are handed over, not raced for: one that becomes free goes to the waiting call of highest priority, and among
    equals to the one that came first. A call whose turn has come but whose tokens do not fit yet is not overtaken. One
    that asks for more tokens than a minute allows is let in when nothing else counts. Nothing polls: those who wait are
    woken by a released slot or by one timer. Entering and leaving take O(log n) with n calls waiting.

    Args:
        max_concurrency: slots held at the same time.
        requests_per_minute, tokens_per_minute: `None` is no limit.
    """

    def __init__(
        self, max_concurrency: int, requests_per_minute: int | None = None, tokens_per_minute: int | None = None
    ):
        self._free = max_concurrency
        self._requests = _Window(requests_per_minute) if requests_per_minute else None
        self._tokens = _Window(tokens_per_minute) if tokens_per_minute else None
        self._queue: list[tuple[float, int, int, asyncio.Future[None]]] = []
        self._arrivals = itertools.count()
        self._held_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, *, priority: float = 0.0, tokens: int = 0) -> AsyncIterator[float]:
        """Hold one slot; yields the seconds waited for it. Higher `priority` first, first come first served within one.

        Cancelling a waiting call costs the others nothing; cancelling one inside the block releases its slot.

        Args:
            tokens: the most the call can use, input and output together; reserved against `tokens_per_minute`.
        """
        loop = asyncio.get_running_loop()
        asked, turn = loop.time(), loop.create_future()
        heapq.heappush(self._queue, (-priority, next(self._arrivals), tokens, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # it may have been the first in line, with those behind it waiting for its tokens
            else:
                self._leave(tokens)  # its turn had come before it could hear of it
            raise
        try:
            yield loop.time() - asked
        finally:
            self._leave(tokens)

    def correct_tokens(self, reserved: int, used: int) -> None:
        """Count `used` tokens instead of the `reserved` ones. Call it inside the slot, once the answer has told."""
        if self._tokens:
            self._tokens.spend(asyncio.get_running_loop().time(), used - min(reserved, self._tokens.limit))
            self._admit()

    def hold_back(self, seconds: float) -> None:
        """Nobody starts within the next `seconds` (a Retry-After). A longer hold that is under way stays."""
        self._held_until = max(self._held_until, asyncio.get_running_loop().time() + seconds)

    def _leave(self, tokens: int) -> None:
        self._free += 1
        if self._tokens:
            self._tokens.close(asyncio.get_running_loop().time(), tokens)
        self._admit()

    def _admit(self) -> None:
        """Let in whoever may start now, and set the timer for the next who may start without a slot being released."""
        loop = asyncio.get_running_loop()
        while self._queue:
            _, _, tokens, turn = self._queue[0]
            if turn.done():  # cancelled while it waited
                heapq.heappop(self._queue)
                continue
            if not self._free:
                return
            now = loop.time()
            ready = max(
                self._held_until,
                self._requests.ready_at(now, 1) if self._requests else now,
                self._tokens.ready_at(now, tokens) if self._tokens else now,
            )
            if ready > now:
                if self._timer:
                    self._timer.cancel()
                self._timer = loop.call_at(ready, self._admit) if ready != float("inf") else None
                return
            heapq.heappop(self._queue)
            self._free -= 1
            if self._requests:
                self._requests.spend(now, 1)
            if self._tokens:
                self._tokens.open(tokens)
            turn.set_result(None)


class _Window:
    """What was used within the last `WINDOW_SECONDS`, and what slots that are still open have reserved."""

    def __init__(self, limit: int):
        self.limit = limit
        self._used = 0  # reserved and spent together
        self._spent: deque[tuple[float, int]] = deque()  # (when it ceases to count, amount), by time

    def ready_at(self, now: float, amount: int) -> float:
        """When to ask again whether `amount` fits: `now` if it does, infinity if that takes a slot's release."""
        while self._spent and self._spent[0][0] <= now:
            self._used -= self._spent.popleft()[1]
        if self._used + min(amount, self.limit) <= self.limit:
            return now
        return self._spent[0][0] if self._spent else float("inf")

    def spend(self, now: float, amount: int) -> None:
        self._used += amount
        self._spent.append((now + WINDOW_SECONDS, amount))

    def open(self, amount: int) -> None:
        self._used += min(amount, self.limit)

    def close(self, now: float, amount: int) -> None:
        """A reservation ends: from now on it only counts until the window has passed over it."""
        self._used -= min(amount, self.limit)
        self.spend(now, min(amount, self.limit))
