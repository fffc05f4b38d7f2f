"""The same call goes out once, whoever asks however often; failures are never kept; no asker can hurt another."""

import asyncio
import gc
import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.call import Answer, Call, CallKind, CallTrace, FailureKind, ServiceFailure, content_key
from reward.settings.recipe import BudgetLimits, LedgerSettings

FAILURE = ServiceFailure("503", FailureKind.SERVER_ERROR)
TRACE = CallTrace(seconds=0.5, attempts=1, input_tokens=100, output_tokens=10)


class Service:
    """Answers with its own call count, once `gate` is open."""

    def __init__(self, *results):
        self.results, self.made, self.gate = list(results), 0, asyncio.Event()
        self.gate.set()

    async def __call__(self):
        self.made += 1
        number = self.made
        await self.gate.wait()
        result = self.results.pop(0) if self.results else {"n": number}
        if isinstance(result, BaseException):
            raise result
        return result, TRACE


def ledger(path: Path, **budget) -> Ledger:
    return Ledger(LedgerSettings(path=path / "ledger.sqlite", run_id="rl", run=BudgetLimits(**budget)))


def call(name: str, kind: CallKind = CallKind.JUDGE) -> Call:
    return Call(kind, content_key(name), "m@1", "t", token_bound=500, cost_bound=1.0)


def statuses(path: Path) -> list[str]:
    rows = sqlite3.connect(path / "ledger.sqlite").execute("SELECT status FROM calls ORDER BY id").fetchall()
    return [row[0] for row in rows]


def yuan(trace: CallTrace) -> float:
    return trace.input_tokens / 1000


@pytest.mark.parametrize("kind", list(CallKind))
def test_made_once_then_stored_in_memory_and_on_disk(tmp_path, kind):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path))
        assert await calls.once(call("a", kind), service, yuan) == Answer(kind, {"n": 1}, "made", TRACE, 0.1)
        assert await calls.once(call("a", kind), service, yuan) == Answer(kind, {"n": 1}, "stored")
        resumed = Calls(ledger(tmp_path))
        assert await resumed.once(call("a", kind), service, yuan) == Answer(kind, {"n": 1}, "stored")
        assert service.made == 1

    asyncio.run(ask())


def test_identical_calls_under_way_are_joined(tmp_path):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path, calls=1))
        service.gate.clear()
        asking = [asyncio.create_task(calls.once(call("a"), service, yuan)) for _ in range(20)]
        await asyncio.sleep(0)
        service.gate.set()
        answers = await asyncio.gather(*asking)
        assert service.made == 1
        assert [answer.source for answer in answers] == ["made"] + ["joined"] * 19
        assert {answer.value["n"] for answer in answers} == {1}
        assert sum(answer.cost for answer in answers) == 0.1

    asyncio.run(ask())


def test_a_failure_is_recorded_shared_by_those_who_waited_and_not_kept(tmp_path):
    async def ask() -> None:
        service, calls = Service(FAILURE), Calls(ledger(tmp_path))
        first = await asyncio.gather(*(calls.once(call("a"), service, yuan) for _ in range(3)))
        assert [answer.value for answer in first] == [FAILURE] * 3
        assert first[0].cost == 0.1  # a failed call may have cost something
        # One who waited and asks again at once gets a new call, not the failed one.
        assert await calls.once(call("a"), service) == Answer(CallKind.JUDGE, {"n": 2}, "made", TRACE)
        assert statuses(tmp_path) == ["server_error", "ok"]

    asyncio.run(ask())


def test_a_cancelled_asker_cancels_nobody_else(tmp_path):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path))
        service.gate.clear()
        asking = [asyncio.create_task(calls.once(call("a"), service)) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()  # the one that began it
        asking[1].cancel()
        await asyncio.gather(*asking[:2], return_exceptions=True)
        service.gate.set()
        assert (await asking[2]).value == {"n": 1}
        assert asking[0].cancelled() and asking[1].cancelled()

    asyncio.run(ask())


def test_a_call_that_nobody_waits_for_any_more_is_still_recorded(tmp_path):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path, calls=1))
        service.gate.clear()
        asking = asyncio.create_task(calls.once(call("a"), service))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        service.gate.set()
        answer = await calls.once(call("a"), service)
        assert (answer.source, answer.value) == ("joined", {"n": 1})
        assert statuses(tmp_path) == ["ok"]

    asyncio.run(ask())


def test_a_bug_reaches_all_who_wait_and_leaves_nothing_behind(tmp_path):
    async def ask() -> None:
        service, calls = Service(KeyError("choices")), Calls(ledger(tmp_path, calls=1))
        answers = await asyncio.gather(*(calls.once(call("a"), service) for _ in range(4)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [KeyError] * 4
        assert statuses(tmp_path) == []
        # Neither the call under way nor the budget's only call is taken.
        assert (await calls.once(call("a"), service)).source == "made"

        def wrong_price(trace: CallTrace) -> float:
            raise ZeroDivisionError

        other = Calls(ledger(tmp_path, calls=2))
        with pytest.raises(ZeroDivisionError):
            await other.once(call("b"), service, wrong_price)
        assert (await other.once(call("b"), service)).source == "made"

    asyncio.run(ask())


def test_a_loop_that_ends_gives_back_reservations(tmp_path):
    kept = ledger(tmp_path, calls=1)

    async def leave() -> None:
        service, calls = Service(), Calls(kept)
        service.gate.clear()
        asyncio.create_task(calls.once(call("a"), service))  # noqa: RUF006 - cancelled with the loop
        await asyncio.sleep(0)

    asyncio.run(leave())
    asyncio.run(leave())
    assert kept.reserve(call("b")) is None
    assert statuses(tmp_path) == []


def test_budget_stops_paid_calls_only(tmp_path):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path, cny=2.05))
        answers = [await calls.once(call(str(number)), service, yuan) for number in range(13)]
        refused = answers[-1]
        assert isinstance(refused.value, ServiceFailure) and refused.value.kind is FailureKind.BUDGET_SPENT
        assert refused.trace == CallTrace() and refused.cost == 0.0
        assert service.made == 11  # at ¥0.10 each, ¥1.00 reserved: 11 × 0.1 + 1.0 > 2.05
        assert statuses(tmp_path) == ["ok"] * 11
        assert (await calls.once(call("3"), service)).source == "stored"
        assert (await calls.once(call("rag", CallKind.RAG), service)).source == "made"
        assert (await calls.once(call("baseline", CallKind.BASELINE), service)).source == "made"

    asyncio.run(ask())


def test_calls_under_way_count_against_the_budget(tmp_path):
    async def ask() -> None:
        service, calls = Service(), Calls(ledger(tmp_path, cny=5))
        answers = await asyncio.gather(*(calls.once(call(str(number)), service, lambda _: 1.0) for number in range(64)))
        assert service.made == 5
        assert sum(answer.cost for answer in answers) == 5.0
        assert sum(isinstance(answer.value, ServiceFailure) for answer in answers) == 59

    asyncio.run(ask())


def test_memory_holds_the_last_answers_only(tmp_path):
    text = "好" * 10_000  # 20 KB as a str

    async def ask() -> None:
        calls = Calls(ledger(tmp_path), memory=50)

        async def answer():
            return {"评分理由": text + str(number)}, TRACE

        tracemalloc.start()
        for number in range(3000):
            await calls.once(call(str(number)), answer)
            if number == 200:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 1_000_000  # all of them would be 56 MB
        assert (await calls.once(call("0"), answer)).source == "stored"

    asyncio.run(ask())
