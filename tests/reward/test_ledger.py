"""The ledger: what was recorded is found again, whoever is killed; budgets hold; a file that fails stops the run."""

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

import reward.ledger.ledger
import reward.ledger.ledger_file
from reward.ledger.ledger import Ledger
from reward.ledger.ledger_file import open_to_read
from reward.records.call import Call, CallKind, CallTrace, FailureKind, ServiceFailure, content_key
from reward.records.files import BadInput
from reward.settings.recipe import BudgetLimits, LedgerSettings
from tests.support.commands import run_python

FORK = multiprocessing.get_context("fork")
VERDICT = {"评分理由": "表达更清晰", "改写质量": 4}
FILE = "ledger.sqlite"
TIMED_OUT = ServiceFailure("no answer\nwithin 60 s", FailureKind.TIMEOUT)


def settings(path: Path, run_id: str = "rl", **budgets) -> LedgerSettings:
    return LedgerSettings(path=path / "ledger.sqlite", run_id=run_id, cny_per_usd=7.0, **budgets)


def call(name: str, kind: CallKind = CallKind.JUDGE, tokens: int = 0, cost: float = 0.0) -> Call:
    return Call(kind, content_key(name), "gpt-5@2025-08", "fivedoctors", tokens, cost)


def rows(path: Path, columns: str = "*") -> list[tuple]:
    return sqlite3.connect(path / "ledger.sqlite").execute(f"SELECT {columns} FROM calls ORDER BY id").fetchall()


def test_an_answer_is_found_again_and_a_failure_is_not(tmp_path):
    ledger = Ledger(settings(tmp_path))
    asked = call("鱼油")
    assert ledger.find(asked.key) is None
    ledger.record(asked, TIMED_OUT, CallTrace(attempts=3), 0.0)
    assert ledger.find(asked.key) is None
    ledger.record(asked, VERDICT, CallTrace(1.5, 0.25, 2, 800, 300, 90), 0.07)
    ledger.close()
    reopened = Ledger(settings(tmp_path))
    assert reopened.find(asked.key) == VERDICT

    failed, answered = rows(tmp_path, "kind, status, detail, value, attempts")
    assert failed == ("judge", "timeout", "no answer within 60 s", None, 3)
    assert answered == ("judge", "ok", "", '{"评分理由":"表达更清晰","改写质量":4}', 2)
    figures = rows(tmp_path, "input_tokens, cached_tokens, output_tokens, cny, round(usd, 9), latency, queued")[1]
    assert figures == (800, 300, 90, 0.07, 0.01, 1.5, 0.25)
    assert rows(tmp_path, "run_id, service, tenant, shared_by")[1] == ("rl", "gpt-5@2025-08", "fivedoctors", 1)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        age = db.execute("SELECT strftime('%s', 'now') - strftime('%s', time) FROM calls").fetchone()[0]
        assert 0 <= age < 60  # the time is UTC
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        plan = db.execute(f"EXPLAIN QUERY PLAN {reward.ledger.ledger._FIND}", ("k",)).fetchall()
        assert "USING INDEX answers" in str(plan) and "TEMP B-TREE" not in str(plan)


def test_any_text_a_service_may_send_is_kept_as_it_was(tmp_path):
    ledger = Ledger(settings(tmp_path))
    value = {"评分理由": 'lone \ud800 surrogate, "quotes", \\udead, \x00 and 🐟', "nested": [{}, None, 1.5, 10**30]}
    ledger.record(call("a"), value, CallTrace(), 0.0)
    ledger.record(call("b"), ServiceFailure("bad \ud800" + "x" * 5000, FailureKind.MALFORMED), CallTrace(), 0.0)
    assert ledger.find(call("a").key) == value
    assert len(rows(tmp_path, "detail")[1][0]) < 400


def test_two_processes_that_finish_the_same_call_were_both_paid(tmp_path):
    first, second = Ledger(settings(tmp_path, "one")), Ledger(settings(tmp_path, "two"))
    second.record(call("a"), {"n": 2}, CallTrace(), 1.0)
    first.record(call("a"), {"n": 1}, CallTrace(), 1.0)
    assert first.find(call("a").key) == second.find(call("a").key) == {"n": 2}
    assert rows(tmp_path, "run_id, cny") == [("two", 1.0), ("one", 1.0)]


def record_many(path: Path, worker: int, begin: Event) -> None:
    begin.wait()
    ledger = Ledger(settings(path))
    for number in range(200):
        ledger.record(call(f"{worker}-{number}"), VERDICT, CallTrace(), 0.01)


def start_workers(path: Path, number: int) -> tuple[Event, list]:
    begin = FORK.Event()
    workers = [FORK.Process(target=record_many, args=(path, worker, begin)) for worker in range(number)]
    for worker in workers:
        worker.start()
    return begin, workers


def join(workers: list) -> None:
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def test_processes_that_start_and_write_at_once_lose_nothing(tmp_path):
    begin, workers = start_workers(tmp_path, 6)
    begin.set()
    join(workers)
    ledger = Ledger(settings(tmp_path))
    assert all(ledger.find(call(f"{worker}-{number}").key) for worker in range(6) for number in range(200))
    assert len(rows(tmp_path)) == 1200
    assert not list(tmp_path.glob("*.partial"))


# --- killed


def record_until_killed(path: Path, seed: int) -> None:
    ledger = Ledger(settings(path))
    printed = os.open(path / f"printed-{seed}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(100_000):
        asked = call(f"{seed}-{number}")
        ledger.record(asked, {**VERDICT, "n": number}, CallTrace(), 0.01)
        os.write(printed, f"{asked.key}\n".encode())


def acknowledged(path: Path) -> list[str]:
    """Read the keys that a killed writer printed. Linux may end a write at a page's edge when the writer is killed: a
    line without its end acknowledges nothing."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def kill_after(seconds: float, path: Path, seed: int, at_work: bool = False) -> None:
    """Kill a writer so many seconds after its start, or after its first row (`at_work`)."""
    child = FORK.Process(target=record_until_killed, args=(path, seed))
    child.start()
    while at_work and not acknowledged(path / f"printed-{seed}"):
        assert child.is_alive()
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL


def test_killed_at_any_moment_no_recorded_row_is_lost(tmp_path, full):
    rounds, delays, known = 50 if full else 10, random.Random(7), {}
    for round_number in range(rounds):
        kill_after(delays.uniform(0.0, 0.06), tmp_path, round_number, at_work=bool(round_number % 2))
        ledger = Ledger(settings(tmp_path))
        with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            found = {row[0] for row in db.execute("SELECT key FROM calls WHERE status = 'ok'")}
        db.close()
        keys = acknowledged(tmp_path / f"printed-{round_number}")
        known |= {key: (round_number, number) for number, key in enumerate(keys)}
        lost = [(*place, key) for key, place in known.items() if key not in found]
        assert not lost, f"round {round_number}: (round, number, key) acknowledged and not in {tmp_path}: {lost[:5]}"
        assert all(ledger.find(key) for key in keys)
        ledger.close()
    assert len(known) >= rounds // 2


def test_killed_while_it_makes_the_file(tmp_path):
    delays = random.Random(8)
    for round_number in range(15):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        kill_after(delays.uniform(0.0, 0.02), folder, round_number)
        Ledger(settings(folder)).record(call("after"), VERDICT, CallTrace(), 0.0)


# --- files that cannot be used


def full_ledger(path: Path) -> Path:
    ledger = Ledger(settings(path))
    for number in range(300):
        ledger.record(call(str(number)), {**VERDICT, "评分理由": "好" * 100}, CallTrace(), 0.01)
    ledger.close()
    return path / "ledger.sqlite"


@pytest.mark.parametrize("kept", [0, 1, 50, 100, 512, 4096, 4097, 8192, 0.5, 0.9, -4096, -1])
def test_a_file_cut_short_is_named_and_left_alone(tmp_path, kept):
    file = full_ledger(tmp_path)
    whole = file.read_bytes()
    assert len(whole) % 4096 == 0 and len(whole) > 100_000
    cut = whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]
    file.write_bytes(cut)
    for attempt in (lambda: Ledger(settings(tmp_path)), lambda: open_to_read(file)):
        with pytest.raises(BadInput) as error:
            attempt()
        assert str(file) in str(error.value) and "\n" not in str(error.value)
        assert "damaged" in str(error.value) and "restore a copy" in str(error.value)
    assert file.read_bytes() == cut


def test_a_file_overwritten_in_the_middle(tmp_path):
    file = full_ledger(tmp_path)
    garbled = bytearray(file.read_bytes())
    garbled[4096 * 5 : 4096 * 9] = random.Random(1).randbytes(4096 * 4)
    file.write_bytes(garbled)
    with pytest.raises(BadInput, match=r"ledger\.sqlite: the ledger is damaged"):
        Ledger(settings(tmp_path))


def test_damage_done_while_it_is_in_use_stops_it(tmp_path):
    full_ledger(tmp_path)
    ledger = Ledger(settings(tmp_path))
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    with pytest.raises(BadInput, match=r"ledger\.sqlite: .*(damaged|cannot be read)"):
        for number in range(300):
            ledger.find(call(str(number)).key)
    with pytest.raises(BadInput, match=r"ledger\.sqlite"):
        ledger.reserve(call("new"))


def test_other_files_are_no_ledgers(tmp_path):
    file = tmp_path / "ledger.sqlite"
    file.write_text("a spreadsheet, perhaps\n" * 500)
    with pytest.raises(BadInput, match="not a database"):
        Ledger(settings(tmp_path))
    file.unlink()
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY)")
    db.close()
    with pytest.raises(BadInput, match="no ledger of calls"):
        Ledger(settings(tmp_path))


def test_a_newer_version_is_left_alone(tmp_path):
    file = full_ledger(tmp_path)
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    before = file.read_bytes()
    with pytest.raises(BadInput, match="has ledger version 3, this program reads and writes version 2"):
        Ledger(settings(tmp_path))
    assert file.read_bytes() == before


def as_version_1(file: Path) -> None:
    """Turn a ledger into what version 1 wrote."""
    with sqlite3.connect(file) as db:
        db.execute("DROP TABLE passages")
        db.execute("ALTER TABLE calls DROP COLUMN estimated")
        db.execute("ALTER TABLE calls RENAME COLUMN attempts TO tries")
        db.execute("PRAGMA user_version = 1")
    db.close()


@pytest.mark.parametrize("opened_by", [lambda path: Ledger(settings(path)), lambda path: open_to_read(path / FILE)])
def test_version_1_is_brought_up_to_date_and_loses_nothing(tmp_path, opened_by):
    file = full_ledger(tmp_path)
    before = rows(tmp_path)
    as_version_1(file)
    opened_by(tmp_path).close()
    assert rows(tmp_path) == [(*row[:16], *row[17:], row[16]) for row in before]  # the new column comes last
    ledger = Ledger(settings(tmp_path))
    assert ledger.find(call("7").key) == {**VERDICT, "评分理由": "好" * 100}
    ledger.record(call("new"), VERDICT, CallTrace(attempts=2, estimated=True), 0.5)
    assert rows(tmp_path, "attempts, estimated, status")[-1] == (2, 1, "ok")


def test_passages_are_kept_once_each(tmp_path):
    ledger, other = Ledger(settings(tmp_path)), Ledger(settings(tmp_path))
    ledger.keep_passages({"a": "鱼油", "b": "钙片 \ud83d"})
    ledger.keep_passages({"a": "鱼油"})
    other.keep_passages({"a": "鱼油", "c": ""})
    with sqlite3.connect(tmp_path / FILE) as db:
        kept = db.execute("SELECT key, content FROM passages ORDER BY key").fetchall()
    assert kept == [("a", "鱼油"), ("b", "钙片 \\ud83d"), ("c", "")]


def test_places_where_no_file_can_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"ledger\.sqlite: cannot be made"):
        Ledger(settings(tmp_path / "file"))
    with pytest.raises(BadInput, match=r"ledger\.sqlite: cannot be made"):
        Ledger(settings(tmp_path / "file" / "deeper"))
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(BadInput, match=r"ledger\.sqlite: cannot be opened"):
        Ledger(settings(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "ledger.sqlite"]


def test_a_log_without_its_file_is_not_read_into_a_new_one(tmp_path):
    ledger = Ledger(settings(tmp_path))
    ledger.record(call("a"), VERDICT, CallTrace(), 0.0)
    (tmp_path / "ledger.sqlite").unlink()
    with pytest.raises(BadInput, match=r"is missing while ledger\.sqlite-wal is there"):
        Ledger(settings(tmp_path))
    ledger.close()


# --- files that fail while in use


def lock(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path / "ledger.sqlite", isolation_level=None, check_same_thread=False)
    db.execute("BEGIN IMMEDIATE")
    return db


def test_a_locked_file_is_waited_for(tmp_path):
    ledger = Ledger(settings(tmp_path))
    other = lock(tmp_path)
    opener = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    opener.start()
    ledger.record(call("a"), VERDICT, CallTrace(), 0.0)
    opener.join()
    assert ledger.find(call("a").key) == VERDICT


def test_a_file_locked_for_too_long_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(reward.ledger.ledger_file, "BUSY_SECONDS", 0.1)
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(calls=10)))
    assert ledger.reserve(call("a")) is None
    other = lock(tmp_path)
    with pytest.raises(BadInput, match=r"ledger\.sqlite: cannot be written, .*: database is locked$"):
        ledger.record(call("a"), VERDICT, CallTrace(), 0.0)
    for refused in (lambda: ledger.find(call("b").key), lambda: ledger.reserve(call("b"))):
        with pytest.raises(BadInput, match="database is locked"):
            refused()
    other.execute("ROLLBACK")
    ledger.record(call("c"), VERDICT, CallTrace(), 0.0)  # what was under way may still get in
    ledger.close()
    reopened = Ledger(settings(tmp_path))
    assert reopened.find(call("a").key) is None
    assert reopened.find(call("c").key) == VERDICT


FILL = """
import asyncio, sys
from pathlib import Path
from reward.records.call import Call, CallKind, CallTrace, content_key
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.sample import BadInput
from reward.settings.recipe import LedgerSettings

async def perform():
    print("made", flush=True)
    return {"评分理由": "好" * 200}, CallTrace(attempts=1)

async def main():
    calls = Calls(Ledger(LedgerSettings(path=Path(sys.argv[1]), run_id="rl")))
    for number in [*range(2000), "one more"]:
        key = content_key(number)
        try:
            await calls.once(Call(CallKind.JUDGE, key, "m@1", "t"), perform)
            print(f"scored {key}", flush=True)
        except BadInput as error:
            print(f"stopped {error}", flush=True)
            if number == "one more":
                raise SystemExit(0) from None

asyncio.run(main())
"""


@pytest.mark.parametrize("largest", [150_000, 300_001])
def test_a_full_disk_stops_the_run_and_scores_nothing(tmp_path, largest):
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest, largest))
    ran = run_python("-c", FILL, str(tmp_path / "ledger.sqlite"), preexec_fn=limit)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    scored = [line.split()[1] for line in lines if line.startswith("scored")]
    stopped = [line for line in lines if line.startswith("stopped")]
    assert len(scored) > 10
    assert lines.count("made") == len(scored) + 1  # one answer was lost, and nothing was paid for after it
    assert "ledger.sqlite: cannot be written, so the answer to a call was lost and the run stops" in stopped[0]
    assert len(set(stopped)) == 1

    ledger = Ledger(settings(tmp_path))
    assert all(ledger.find(key) for key in scored)
    assert len(rows(tmp_path)) == len(scored)
    ledger.record(call("after"), VERDICT, CallTrace(), 0.0)


# --- budgets


def test_money_is_not_exceeded(tmp_path):
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(cny=20)))
    ledger.record(call("a"), VERDICT, CallTrace(), 19.93)
    assert ledger.reserve(call("b", cost=0.05)) is None
    refused = ledger.reserve(call("c", cost=0.05))
    assert refused == ServiceFailure(
        "run budget of ¥20.00 would be exceeded: ¥19.98 spent or reserved", FailureKind.BUDGET_SPENT
    )
    assert ledger.reserve(call("d", cost=0.02)) is None
    ledger.record(call("b", cost=0.05), VERDICT, CallTrace(), 0.01)  # cheaper than its bound: room again
    assert ledger.reserve(call("e", cost=0.04)) is None
    assert ledger.reserve(call("f", cost=0.001)) is not None
    assert len(rows(tmp_path)) == 2


def test_calls_and_tokens_are_not_exceeded(tmp_path):
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(calls=3), day=BudgetLimits(tokens=1000)))
    assert ledger.reserve(call("a", tokens=600)) is None
    refused = ledger.reserve(call("b", tokens=600))
    assert refused.reason == "day budget of 1,000 tokens would be exceeded: 600 tokens spent or reserved"
    ledger.record(call("a", tokens=600), TIMED_OUT, CallTrace(attempts=2, input_tokens=80, output_tokens=20), 0.0)
    assert ledger.reserve(call("b", tokens=600)) is None
    assert ledger.reserve(call("c")) is None
    refused = ledger.reserve(call("d"))
    assert refused.reason == "run budget of 3 calls would be exceeded: 3 calls spent or reserved"
    ledger.release(call("c"))
    ledger.release(call("never reserved"))
    assert ledger.reserve(call("d")) is None
    assert ledger.reserve(call("e")) is not None


def test_a_budget_is_spent_to_the_last_fen_and_no_further(tmp_path):
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(cny=0.3)))
    for number in range(3):  # 0.1 + 0.1 + 0.1 > 0.3 in floats
        asked = call(str(number), cost=0.1)
        assert ledger.reserve(asked) is None
        ledger.record(asked, VERDICT, CallTrace(), 0.1)
    assert ledger.reserve(call("3", cost=0.001)) is not None
    assert ledger.reserve(call("free")) is None


def test_own_services_are_free(tmp_path):
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(calls=0, tokens=0, cny=0)))
    for kind in (CallKind.RAG, CallKind.BASELINE):
        asked = call(kind.value, kind, tokens=100)
        assert ledger.reserve(asked) is None
        ledger.record(asked, VERDICT, CallTrace(input_tokens=100), 0.0)
        assert ledger.reserve(asked) is None
    assert ledger.reserve(call("a")) is not None


def test_a_batched_call_counts_once(tmp_path):
    ledger = Ledger(settings(tmp_path, run=BudgetLimits(calls=2)))
    for number in range(3):
        ledger.record(call(str(number)), VERDICT, CallTrace(shared_by=3), 0.0)
    assert ledger.reserve(call("a")) is None
    assert ledger.reserve(call("b")) is not None


def test_a_resumed_run_continues_its_budget_and_a_new_day_begins_at_nothing(tmp_path):
    budgets = {"run": BudgetLimits(calls=4), "day": BudgetLimits(calls=2)}
    ledger = Ledger(settings(tmp_path, **budgets))
    for number in range(2):
        ledger.record(call(str(number)), VERDICT, CallTrace(), 0.0)
    ledger.close()
    resumed = Ledger(settings(tmp_path, **budgets))
    assert resumed.reserve(call("a")).reason.startswith("day budget of 2 calls")
    resumed.close()

    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("UPDATE calls SET time = '2020-02-29T23:59:59.999+00:00'")
    db.close()
    resumed = Ledger(settings(tmp_path, **budgets))
    assert [resumed.reserve(call(name)) for name in "ab"] == [None, None]
    resumed.record(call("a"), VERDICT, CallTrace(), 0.0)
    resumed.record(call("b"), VERDICT, CallTrace(), 0.0)
    assert resumed.reserve(call("c")).reason.startswith("run budget of 4 calls")
    resumed.close()
    assert Ledger(settings(tmp_path, "another run", **budgets)).reserve(call("c")).reason.startswith("day budget")


def test_what_other_processes_spend_counts(tmp_path):
    budget = {"run": BudgetLimits(calls=450), "day": BudgetLimits(calls=650)}
    begin, workers = start_workers(tmp_path, 2)  # of the same run; forked before the file is opened here
    ledger = Ledger(settings(tmp_path, **budget))
    other_run = Ledger(settings(tmp_path, "another", **budget))
    assert ledger.reserve(call("before")) is None
    ledger.release(call("before"))
    begin.set()
    join(workers)
    assert all(ledger.reserve(call(str(number))) is None for number in range(50))
    assert ledger.reserve(call("one more")).reason.startswith("run budget of 450 calls")
    assert all(other_run.reserve(call(str(number))) is None for number in range(250))
    assert other_run.reserve(call("one more")).reason.startswith("day budget of 650 calls")
