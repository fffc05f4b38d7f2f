"""The limiter on an event loop whose clock jumps to the next timer: minutes of limits pass in milliseconds, exactly."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reward.services.limits import Limiter


class JumpingClock(asyncio.SelectorEventLoop):
    """Where another loop would sleep until its next timer, this one moves its clock there."""

    def __init__(self) -> None:
        super().__init__(_Jump(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Jump(selectors.SelectSelector):
    def __init__(self, loop: JumpingClock):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for ever"
        self._loop.now += max(timeout, 0.0)
        return super().select(0)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    loop = JumpingClock()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def hold(limiter: Limiter, seconds: float, log: list[Any], name: Any, **slot: Any) -> None:
    async with limiter.slot(**slot):
        log.append((name, now()))
        await asyncio.sleep(seconds)


def test_the_highest_priority_goes_first_and_equals_keep_their_order() -> None:
    async def work() -> list[Any]:
        limiter, log = Limiter(1), []
        first = asyncio.create_task(hold(limiter, 1, log, "holder"))
        await asyncio.sleep(0)
        calls = [("a", 0.0), ("b", 1.0), ("c", 0.0), ("d", 1.0), ("e", 2.0)]
        await asyncio.gather(first, *(hold(limiter, 1, log, name, priority=p) for name, p in calls))
        return [name for name, _ in log]

    assert run(work()) == ["holder", "e", "b", "d", "a", "c"]


def test_the_seconds_waited_are_told() -> None:
    async def work() -> float:
        limiter = Limiter(1)
        holder = asyncio.create_task(hold(limiter, 2.5, [], "holder"))
        await asyncio.sleep(0)
        async with limiter.slot() as waited:
            await holder
            return waited

    assert run(work()) == 2.5


def test_a_request_above_the_rate_waits_for_the_oldest_to_leave_the_window() -> None:
    async def work() -> list[float]:
        limiter, log = Limiter(10, requests_per_minute=3), []
        await asyncio.gather(*(hold(limiter, 0, log, i) for i in range(3)))
        await asyncio.sleep(20)
        await asyncio.gather(*(hold(limiter, 0, log, i) for i in range(4)))
        return [at for _, at in log]

    assert run(work()) == [0, 0, 0, 61, 61, 61, 122]


def test_tokens_count_until_a_minute_after_their_slot_and_a_correction_gives_back() -> None:
    async def work() -> list[float]:
        limiter, log = Limiter(10, tokens_per_minute=100), []

        async def call(used: int) -> None:
            async with limiter.slot(tokens=60):
                log.append(now())
                await asyncio.sleep(5)
                limiter.correct_tokens(60, used)

        await asyncio.gather(call(40), call(90), call(10))
        return log

    # 60 of 100 are reserved; corrected to 40 they let the second in, whose 90 keep the third out until they are gone.
    assert run(work()) == [0, 5, 71]


def test_a_call_for_more_tokens_than_a_minute_allows_is_let_in_alone() -> None:
    async def work() -> list[Any]:
        limiter, log = Limiter(10, tokens_per_minute=100), []
        await asyncio.gather(hold(limiter, 1, log, "small", tokens=10), hold(limiter, 1, log, "huge", tokens=900))
        return log

    assert run(work()) == [("small", 0), ("huge", 62)]


def test_a_retry_after_holds_everybody_back_and_a_shorter_one_does_not_shorten_it() -> None:
    async def work() -> list[Any]:
        limiter, log = Limiter(2), []
        running = asyncio.create_task(hold(limiter, 1, log, "running"))
        await asyncio.sleep(0)
        limiter.hold_back(30)
        limiter.hold_back(5)
        await asyncio.gather(running, hold(limiter, 1, log, "next"))
        return log

    assert run(work()) == [("running", 0), ("next", 30)]


@pytest.mark.parametrize("when", ["queued", "just admitted", "inside"])
def test_a_cancelled_call_leaks_no_slot(when: str) -> None:
    async def work() -> list[Any]:
        limiter, log = Limiter(1), []
        async with limiter.slot():
            victim = asyncio.create_task(hold(limiter, 1000, log, "victim"))
            await asyncio.sleep(1)
            if when == "queued":
                victim.cancel()
        # The slot has just been handed to the victim, which has not run since.
        if when == "inside":
            await asyncio.sleep(1)
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        await asyncio.gather(*(hold(limiter, 1, log, i) for i in range(2)))
        return log

    served = run(work())
    assert [name for name, _ in served] == (["victim", 0, 1] if when == "inside" else [0, 1])


def test_the_next_in_line_starts_when_the_one_before_it_gives_up() -> None:
    async def work() -> list[Any]:
        limiter, log = Limiter(10, tokens_per_minute=100), []
        running = asyncio.create_task(hold(limiter, 1000, log, "running", tokens=60))
        await asyncio.sleep(0)
        too_big = asyncio.create_task(hold(limiter, 0, log, "too big", tokens=90))
        await asyncio.sleep(0)
        small = asyncio.create_task(hold(limiter, 0, log, "small", tokens=10))
        await asyncio.sleep(3)
        too_big.cancel()
        await small
        running.cancel()
        return log

    assert run(work()) == [("running", 0), ("small", 3)]


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), concurrency=st.integers(1, 5), requests=st.integers(1, 20))
def test_random_traffic_never_exceeds_a_limit_and_everybody_is_served(
    seed: int, concurrency: int, requests: int
) -> None:
    tokens_limit = 500

    async def work() -> None:
        random_of = random.Random(seed)
        limiter = Limiter(concurrency, requests, tokens_limit)
        inside, most, served = 0, 0, 0
        starts: list[float] = []
        usage: list[tuple[float, float, int]] = []

        async def call() -> None:
            nonlocal inside, most, served
            await asyncio.sleep(random_of.uniform(0, 100))
            reserved = random_of.randint(1, 200)
            async with limiter.slot(priority=random_of.choice([0, 1]), tokens=reserved):
                inside += 1
                most = max(most, inside)
                started = now()
                starts.append(started)
                try:
                    await asyncio.sleep(random_of.uniform(0, 90))
                    used = random_of.randint(0, reserved)
                    limiter.correct_tokens(reserved, used)
                    usage.append((started, now(), used))
                finally:
                    inside -= 1
            served += 1

        async def impatient() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(random_of.uniform(0, 50)):
                    await asyncio.gather(call(), asyncio.sleep(1000))

        patient = [call() for _ in range(40)]
        given_up = [impatient() for _ in range(10)]
        await asyncio.gather(*patient, *given_up)
        assert most <= concurrency and served >= 40
        for start in starts:
            assert sum(start <= other < start + 60 for other in starts) <= requests
        # Whenever a provider charges the tokens, at a call's start or at its end, no minute is overdrawn.
        for charged in (0, 1):
            moments = [(call[charged], call[2]) for call in usage]
            for start, _ in moments:
                assert sum(used for at, used in moments if start <= at < start + 60) <= tokens_limit

    run(work())
