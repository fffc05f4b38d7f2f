"""Rewrites of one prompt that arrive together are graded in one call.

The first one opens a batch; the batch leaves after `window` seconds or when it is full. In the call they stand in an
order drawn from their texts, so that no place is favoured. What the call took is split evenly over its verdicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reward.judge.protocol import batched_order
from reward.records.call import CallTrace, ServiceFailure
from reward.records.sample import Sample
from reward.settings.recipe import BatchingSettings

Result = tuple[dict[str, Any] | ServiceFailure, CallTrace]
Ask = Callable[[Sample, Sequence[str], float], Awaitable[Result]]


@dataclass
class _Batch:
    sample: Sample
    leaves: asyncio.TimerHandle
    waiting: list[tuple[str, asyncio.Future[Result]]] = field(default_factory=list)
    priority: float = 0.0


class Batches:
    """The open batches of one judge. Use it from a single event loop.

    Args:
        ask: grades some rewrites of a sample at a priority: `{"评分": [verdict of each, in that order]}`.
    """

    def __init__(self, settings: BatchingSettings, ask: Ask):
        self._settings, self._ask = settings, ask
        self._open: dict[str, _Batch] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def grade(self, group: str, sample: Sample, rewrite: str, priority: float) -> Result:
        """The verdict of `rewrite`, graded together with what arrives for the same `group`; its share of the costs.

        A malformed answer fails all who shared it. A batch goes out at the highest priority among its rewrites.
        """
        loop = asyncio.get_running_loop()
        batch = self._open.get(group)
        if batch is None:
            leaves = loop.call_later(self._settings.window, self._send, group)
            batch = self._open[group] = _Batch(sample, leaves, priority=priority)
        verdict: asyncio.Future[Result] = loop.create_future()
        batch.waiting.append((rewrite, verdict))
        batch.priority = max(batch.priority, priority)
        if len(batch.waiting) == self._settings.candidates:
            self._send(group)
        return await verdict

    def _send(self, group: str) -> None:
        batch = self._open.pop(group)
        batch.leaves.cancel()
        task = asyncio.create_task(self._ask_all(batch))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _ask_all(self, batch: _Batch) -> None:
        rewrites = [rewrite for rewrite, _ in batch.waiting]
        order = batched_order(batch.sample, rewrites)
        verdicts = [batch.waiting[index][1] for index in order]
        try:
            value, trace = await self._ask(batch.sample, [rewrites[index] for index in order], batch.priority)
        except BaseException as error:
            for verdict in verdicts:
                if not verdict.done():
                    verdict.set_exception(error)
            raise
        share = share_of(trace, len(rewrites))
        for place, verdict in enumerate(verdicts):
            if not verdict.done():
                verdict.set_result((value if isinstance(value, ServiceFailure) else value["评分"][place], share))

    async def aclose(self) -> None:
        """Give up what is still waiting or under way."""
        for batch in self._open.values():
            batch.leaves.cancel()
            for _, verdict in batch.waiting:
                verdict.cancel()
        self._open.clear()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)


def share_of(trace: CallTrace, verdicts: int) -> CallTrace:
    """One verdict's share of a call that produced several: its part of the tokens, all of the time."""
    return replace(
        trace,
        input_tokens=trace.input_tokens / verdicts,
        cached_tokens=trace.cached_tokens / verdicts,
        output_tokens=trace.output_tokens / verdicts,
        shared_by=verdicts,
    )
