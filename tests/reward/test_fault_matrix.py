"""What can go wrong, over real sockets and real files, and what becomes of it: docs/fault-matrix.md is this table.

python -m tests.reward.test_fault_matrix        rewrites docs/fault-matrix.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import reward.ledger.ledger_file
from reward.engine import RewardEngine
from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.files import BadInput
from reward.records.outcome import Abstained, AbstainReason, Scored
from reward.rollouts.rollout_log import read_rollouts
from tests.support import ROOT
from tests.support.engine_fault_cases import (
    ENGINE_CASES,
    REWRITE,
    SAMPLE,
    START_CASES,
    Deployment,
    EngineCase,
    locked_ledger,
)
from tests.support.fault_cases import SERVICE_CASES, Asked, Case, WorkingService, ask_baseline, ask_rag
from tests.support.judge_fault_cases import JUDGE_CASES, ask_judge
from tests.support.scripted_service import ScriptedService

TABLE = ROOT / "docs" / "fault-matrix.md"
CASES = [*SERVICE_CASES, *JUDGE_CASES]
ASK: dict[str, Callable[[str, Case], Awaitable[Asked]]] = {
    "rag": ask_rag,
    "baseline": ask_baseline,
    "judge": ask_judge,
}
ABSTAINS = {"rag": AbstainReason.RAG, "baseline": AbstainReason.BASELINE, "judge": AbstainReason.JUDGE}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.service}: {case.name}")
def test_a_fault_has_one_outcome_and_is_never_a_score(case: Case) -> None:
    async def ask() -> tuple[Any, CallTrace, int]:
        async with ScriptedService(case.script) if case.reply is None else WorkingService(case.reply) as service:
            url = service.url if case.url is None else case.url
            value, trace = await ASK[case.service.partition(",")[0]](url, case)
            return value, trace, len(service.bodies)

    value, trace, arrived = asyncio.run(ask())
    if isinstance(case.expected, FailureKind):
        assert isinstance(value, ServiceFailure), f"counted as an answer: {value!r}"
        assert value.kind == case.expected and value.reason
    else:
        assert value == case.expected
    assert trace.attempts == case.requests
    assert arrived == (case.requests if case.url is None else 0)


async def close(engine: RewardEngine) -> None:
    """What a run leaves to the end of its process."""
    await engine.aclose()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float | str], int]:
    """The rollout's fields when nothing fails, and the requests that it takes."""

    async def play() -> tuple[dict[str, float | str], int]:
        folder = tmp_path_factory.mktemp("undisturbed")
        async with Deployment(folder) as deployment:
            engine = deployment.engine()
            fields = await engine.score(SAMPLE, REWRITE, step=2)
            await close(engine)
            return fields, deployment.requests()

    fields, requests = asyncio.run(play())
    assert fields["abstained"] == 0.0 and 0.0 < float(fields["score"]) < 1.0
    return fields, requests


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked ledger is waited for 0.1 s instead of 10."""
    monkeypatch.setattr(reward.ledger.ledger_file, "BUSY_SECONDS", 0.1)


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("case", ENGINE_CASES, ids=lambda case: f"{case.fails}: {case.name}")
def test_a_rollout_abstains_and_is_scored_once_the_fault_is_mended(
    case: EngineCase, tmp_path: Path, undisturbed: tuple[dict[str, float | str], int]
) -> None:
    async def play() -> tuple[dict[str, float | str], dict[str, float | str], int]:
        async with Deployment(tmp_path) as deployment:
            engine = deployment.engine(**case.changes)
            with case.breaking(deployment):
                first = await engine.score(SAMPLE, REWRITE, step=1)
            if case.resumes:
                await close(engine)
                engine = deployment.engine()
            second = await engine.score(SAMPLE, REWRITE, step=2)
            await close(engine)
            return first, second, deployment.requests()

    abstained, mended, requests = asyncio.run(play())
    expected, needed = undisturbed
    assert abstained.keys() == expected.keys()
    assert (abstained["abstained"], abstained["reason"], abstained["failure"]) == (1.0, case.reason, case.failure or "")
    assert {abstained[part] for part in ("score", "win", "loss", "gated", "retrieval", "judge", "judged")} == {0.0}
    assert abstained["detail"]
    outcome = ("score", "abstained", "reason", "win", "retrieval", "judge", "policy_rank", "baseline_rank")
    assert {name: mended[name] for name in outcome} == {name: expected[name] for name in outcome}
    assert requests == needed + case.in_vain  # what was answered before the fault is not asked for again

    *unscored, last = [rollout.outcome for rollout in read_rollouts(tmp_path)]
    assert isinstance(last, Scored) and last.reward == mended["score"]
    assert len(unscored) == (0 if case.reason is AbstainReason.RECORD else 1)
    assert all(isinstance(outcome, Abstained) and outcome.reason is case.reason for outcome in unscored)


@pytest.mark.usefixtures("short_wait")
def test_once_its_ledger_has_failed_a_run_asks_for_nothing_more(tmp_path: Path) -> None:
    async def play() -> None:
        async with Deployment(tmp_path) as deployment:
            engine = deployment.engine()
            with locked_ledger(deployment):
                await engine.score(SAMPLE, REWRITE, step=1)
            sent = deployment.requests()
            again = await engine.score(SAMPLE, REWRITE, step=1)
            await close(engine)
            assert (again["score"], again["abstained"], again["reason"]) == (0.0, 1.0, AbstainReason.RECORD)
            assert deployment.requests() == sent

    asyncio.run(play())


@pytest.mark.parametrize("name", START_CASES)
def test_a_run_without_a_record_does_not_start(name: str, tmp_path: Path) -> None:
    broken = START_CASES[name](tmp_path / "run")

    async def start() -> None:
        async with Deployment(tmp_path / "run") as deployment:
            with pytest.raises((BadInput, OSError)) as error:
                deployment.engine()
            assert str(broken) in str(error.value) and "\n" not in str(error.value)
            assert deployment.requests() == 0

    asyncio.run(start())


STOPS = "`record_failed`, nothing further is asked for"
# (shown by, what goes wrong, outcome, scored): faults of files are played where the files are made.
FILES = [
    (
        "ledger::test_a_file_cut_short_is_named_and_left_alone",
        "ledger cut short, at 12 lengths",
        "does not start",
        "no",
    ),
    ("ledger::test_a_file_overwritten_in_the_middle", "ledger overwritten in the middle", "does not start", "no"),
    ("ledger::test_other_files_are_no_ledgers", "another file in the ledger's place", "does not start", "no"),
    ("ledger::test_a_newer_version_is_left_alone", "ledger of a newer version", "does not start", "no"),
    (
        "ledger::test_a_log_without_its_file_is_not_read_into_a_new_one",
        "ledger gone, -wal left",
        "does not start",
        "no",
    ),
    ("ledger::test_damage_done_while_it_is_in_use_stops_it", "ledger emptied while in use", STOPS, "no"),
    ("ledger::test_a_file_locked_for_too_long_stops_the_run", "ledger locked for too long", STOPS, "no"),
    ("ledger::test_a_full_disk_stops_the_run_and_scores_nothing", "disk full under the ledger", STOPS, "no"),
    ("ledger::test_a_locked_file_is_waited_for", "ledger locked for a moment", "waits", "yes"),
    (
        "ledger::test_killed_at_any_moment_no_recorded_row_is_lost",
        "killed, 50 times",
        "no recorded call is lost",
        "—",
    ),
    ("ledger::test_killed_while_it_makes_the_file", "killed while the ledger is made", "starts again", "—"),
    ("rollout_log::test_a_full_disk_leaves_whole_lines", "disk full under the rollout log", "`record_failed`", "no"),
    ("rollout_log::test_a_killed_process_loses_nothing", "killed, rollout log open", "no logged rollout is lost", "—"),
]


def test_the_tests_that_the_table_names_are_there() -> None:
    for shown_by, *_ in FILES:
        file, _, name = shown_by.partition("::")
        assert f"def {name}(" in TABLE.parent.parent.joinpath(f"tests/reward/test_{file}.py").read_text(
            encoding="utf-8"
        )


def table() -> str:
    """docs/fault-matrix.md."""
    lines = [
        "# What can go wrong, and what becomes of it",
        "",
        "Rewrite this file with `python -m tests.reward.test_fault_matrix`: it is that test's table.",
        "",
        "## One call to a service",
        "",
        "Played over real sockets with two attempts a call. *Outcome* is the failure's kind",
        "(`reward.records.call.FailureKind`) and the reason with which the rollout abstains, or `answer` where nothing",
        "is wrong. *Requests* is how many were sent before it was final.",
        "",
        "| service | what goes wrong | outcome | requests | scored |",
        "|---|---|---|---|---|",
    ]
    for case in CASES:
        outcome, scored = "answer", "yes"
        if isinstance(case.expected, FailureKind):
            outcome, scored = f"`{case.expected}` → `{ABSTAINS[case.service.partition(',')[0]]}`", "no"
        elif case.name.startswith("forged"):
            outcome = f"answer: {case.expected:g}, the grade of its own text"
        lines.append(f"| {case.service} | {case.name} | {outcome} | {case.requests} | {scored} |")
    failures = sum(isinstance(case.expected, FailureKind) for case in CASES)
    lines += [
        "",
        "## A rollout, from end to end",
        "",
        "`RewardEngine.score` with retrieval, baseline and judge on real sockets, one try a call. The rollout's",
        "`score` is 0 with `abstained` 1, no part of it counts. Once the fault is mended the same rollout is scored as",
        "if nothing had been, and of all requests only those *in vain* are sent again. *Goes on*: by itself.",
        "",
        "| what fails | how | outcome | requests in vain | goes on | scored |",
        "|---|---|---|---|---|---|",
    ]
    for played in ENGINE_CASES:
        outcome = f"`{played.failure}` → `{played.reason}`" if played.failure else f"`{played.reason}`"
        goes_on = "after a restart" if played.resumes else "yes"
        lines.append(f"| {played.fails} | {played.name} | {outcome} | {played.in_vain} | {goes_on} | no |")
    lines += ["", "## The run's files", "", "| what goes wrong | outcome | shown by | scored |", "|---|---|---|---|"]
    started = [
        ("fault_matrix::test_a_run_without_a_record_does_not_start", name, "does not start", "no")
        for name in START_CASES
    ]
    for shown_by, name, outcome, scored in started + FILES:
        lines.append(f"| {name} | {outcome} | `tests/reward/test_{shown_by.replace('::', '.py::')}` | {scored} |")
    total = len(CASES) + len(ENGINE_CASES) + len(START_CASES) + len(FILES)
    failed = failures + len(ENGINE_CASES)
    lines += ["", f"{total} cases. {failed} calls and rollouts failed; 0 of them were scored."]
    return "\n".join(lines) + "\n"


def test_the_documented_table_is_this_one() -> None:
    assert TABLE.read_text(encoding="utf-8") == table(), "run: python -m tests.reward.test_fault_matrix"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
