"""The ledger names its first broken line; registry and champion stay consistent through kills and races."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from export import decisions as decisions_command
from export import rollback
from export.promote import main as promote_main
from export.versions.decisions import BrokenLedger, Decisions
from export.versions.registry import open_registry
from tests.support.killed_promotions import kill_after, start_promotion
from tests.support.promotion import KEY, evaluation, write_evaluation, write_model, write_tenant

SECRET = "a key of the tests, long enough"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    return write_tenant(tmp_path, audit=False)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def arguments(tmp_path: Path, tenant: Path, name: str, others: dict[str, Path] | None = None, **changes) -> list[str]:
    """Of a promotion of the model `name`, compared with the baseline and `others`."""
    model = write_model(tmp_path / "models" / name, name)
    run = write_evaluation(tmp_path / "evaluations" / name, evaluation({"rl": model, **(others or {})}, **changes))
    registry = str(tmp_path / "registry")
    return ["--tenant", str(tenant), "--run", str(run), "--model", str(model), "--registry", registry]


def promote_three(tmp_path: Path, tenant: Path) -> None:
    """Make v1, v2 and v3."""
    before: dict[str, Path] = {}
    for name in ("one", "two", "three"):
        assert promote_main(arguments(tmp_path, tenant, name, before)) == 0
        before = {"old": tmp_path / "models" / name}


def of_registry(module, registry: Path, tenant: Path, *more: str) -> int:
    return module.main(["--tenant", str(tenant), "--registry", str(registry), *more])


def champion(registry: Path) -> str | None:
    path = registry / "fivedoctors" / "champion.json"
    return json.loads(path.read_text())["version"] if path.is_file() else None


def check_consistent(registry: Path) -> list[dict]:
    """Open the registry as the next command does: pointer, decisions and files must agree. Returns the decisions."""
    with open_registry(registry, "fivedoctors", SECRET.encode()) as opened:
        named = champion(registry)
        assert (opened.champion or {}).get("version") == named
        if opened.champion:
            assert opened.problem_of(opened.champion) is None
        return opened.records


def test_verifying_lists_the_decisions(tmp_path, tenant, registry, capsys):
    assert of_registry(decisions_command, registry, tenant) == 2
    assert "nothing has been decided" in capsys.readouterr().err
    promote_three(tmp_path, tenant)
    capsys.readouterr()
    assert of_registry(decisions_command, registry, tenant) == 0
    told = capsys.readouterr().out
    assert "3 decisions, all signed and in order" in told and "champion: v3" in told


def change_verdict(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"verdict":"PROMOTE"', '"verdict":"HOLD"'), lines[2]]


def change_space(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('","', '", "', 1), lines[2]]


def remove_middle(lines: list[str]) -> list[str]:
    return [lines[0], lines[2]]


def swap(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1]]


def repeat(lines: list[str]) -> list[str]:
    return [lines[0], lines[0], lines[1], lines[2]]


def add_blank(lines: list[str]) -> list[str]:
    return [lines[0], "", lines[1], lines[2]]


def sign_with_other_key(lines: list[str]) -> list[str]:
    record = json.loads(lines[1])
    record["signature"] = "0" * 64
    return [lines[0], json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")), lines[2]]


def drop_signature(lines: list[str]) -> list[str]:
    record = json.loads(lines[1])
    del record["signature"]
    return [lines[0], json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")), lines[2]]


def no_json(lines: list[str]) -> list[str]:
    return [lines[0], "\ufffd{", lines[2]]


def no_object(lines: list[str]) -> list[str]:
    return [lines[0], "[]", lines[2]]


@pytest.mark.parametrize(
    "damage",
    [
        change_verdict, change_space, remove_middle, swap, repeat, add_blank, sign_with_other_key, drop_signature,
        no_json, no_object,
    ],
)  # fmt: skip
def test_the_first_broken_line_is_named_and_nothing_more_is_decided(tmp_path, tenant, registry, capsys, damage):
    promote_three(tmp_path, tenant)
    ledger = registry / "fivedoctors" / "decisions.jsonl"
    damaged = "\n".join(damage(ledger.read_text(encoding="utf-8").splitlines())) + "\n"
    ledger.write_text(damaged, encoding="utf-8")
    capsys.readouterr()
    assert of_registry(decisions_command, registry, tenant) == 1
    told = capsys.readouterr().err
    assert told.startswith("BROKEN: ") and "decisions.jsonl: line 2: " in told
    assert of_registry(rollback, registry, tenant) == 2
    assert ledger.read_text(encoding="utf-8") == damaged and champion(registry) == "v3"


def test_lines_cut_off_the_end_are_noticed_by_the_champion(tmp_path, tenant, registry, capsys):
    promote_three(tmp_path, tenant)
    ledger = registry / "fivedoctors" / "decisions.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))
    assert of_registry(decisions_command, registry, tenant) == 1
    assert "line 3: missing" in capsys.readouterr().err and champion(registry) == "v3"


def test_another_key_and_another_tenants_ledger_do_not_fit(tmp_path, tenant, registry, monkeypatch, capsys):
    promote_three(tmp_path, tenant)
    ledger = registry / "fivedoctors" / "decisions.jsonl"
    with pytest.raises(BrokenLedger, match="line 1: its signature"):
        Decisions(ledger, b"another key of the tests").read()
    other = registry / "chengla" / "decisions.jsonl"
    other.parent.mkdir()
    shutil.copy(ledger, other)
    with pytest.raises(BrokenLedger, match="line 1: does not follow"):
        Decisions(other, SECRET.encode()).read()


def test_rollback_goes_back_step_by_step_and_forward_by_name(tmp_path, tenant, registry, capsys):
    promote_three(tmp_path, tenant)
    assert of_registry(rollback, registry, tenant, "--reason", "complaints") == 0
    assert champion(registry) == "v2"
    # Not to v3, which was just rolled back from, but further back.
    assert of_registry(rollback, registry, tenant) == 0 and champion(registry) == "v1"
    assert of_registry(rollback, registry, tenant) == 2
    assert "v1 is the champion, and no earlier version" in capsys.readouterr().err
    assert of_registry(rollback, registry, tenant, "--to", "v3") == 0 and champion(registry) == "v3"
    assert of_registry(rollback, registry, tenant, "--to", "v9") == 2
    records = check_consistent(registry)
    assert [record["verdict"] for record in records] == ["PROMOTE"] * 3 + ["ROLLBACK"] * 3
    assert records[3]["reason"] == "complaints"


def test_a_version_whose_files_changed_is_not_served_again(tmp_path, tenant, registry, capsys):
    promote_three(tmp_path, tenant)
    (registry / "fivedoctors" / "models" / "v2" / "model.safetensors").write_text("changed")
    assert of_registry(rollback, registry, tenant) == 2
    assert "is not the model that was promoted" in capsys.readouterr().err and champion(registry) == "v3"
    shutil.rmtree(registry / "fivedoctors" / "models" / "v2")
    assert of_registry(rollback, registry, tenant) == 2 and champion(registry) == "v3"
    assert of_registry(rollback, registry, tenant, "--to", "v1") == 0 and champion(registry) == "v1"


def test_a_later_training_does_not_change_the_champion(tmp_path, tenant, registry):
    promote_three(tmp_path, tenant)
    write_model(tmp_path / "models" / "three", "trained again in the same folder")
    check_consistent(registry)
    assert champion(registry) == "v3"


def test_a_kill_between_decision_and_pointer_is_mended_by_the_next_command(tmp_path, tenant, registry, capsys):
    assert promote_main(arguments(tmp_path, tenant, "one")) == 0
    # The pointer cannot be written: what a kill right after the decision leaves.
    blocker = registry / "fivedoctors" / "champion.json.partial"
    blocker.mkdir()
    assert promote_main(arguments(tmp_path, tenant, "two", {"old": tmp_path / "models" / "one"})) == 2
    assert "cannot be written" in capsys.readouterr().err and champion(registry) == "v1"
    blocker.rmdir()
    assert of_registry(decisions_command, registry, tenant) == 0
    assert "champion: v2" in capsys.readouterr().out and champion(registry) == "v2"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_torn_last_line_is_no_decision(tmp_path, tenant, registry, share):
    promote_three(tmp_path, tenant)
    ledger = registry / "fivedoctors" / "decisions.jsonl"
    whole = ledger.read_bytes()
    with ledger.open("ab") as out:  # the next decision, not written to its end
        line = whole.splitlines()[-1]
        out.write(line[: int(len(line) * share)])
    assert len(check_consistent(registry)) == 3
    assert of_registry(rollback, registry, tenant) == 0
    assert ledger.read_bytes().startswith(whole) and len(check_consistent(registry)) == 4


def test_promotions_at_once_decide_one_after_the_other(tmp_path, tenant, registry):
    same = arguments(tmp_path, tenant, "same")
    others = [arguments(tmp_path, tenant, f"other{i}") for i in range(2)]
    processes = [start_promotion(one) for one in (same, *others, same)]
    for process in processes:
        process.join()
    records = check_consistent(registry)
    assert [record["n"] for record in records] == [1, 2, 3, 4]
    # The first takes the place; the others have not been compared with it, or are it.
    moved = [record for record in records if record["moves_to"]]
    assert len(moved) == 1 and records[0] is moved[0] and champion(registry) == "v1"
    assert sorted(p.name for p in (registry / "fivedoctors" / "models").iterdir()) == ["v1"]


def test_killed_promotions_leave_a_consistent_registry(tmp_path, tenant, registry, full):
    chance = random.Random(0)
    # How long one takes decides when to kill: from its first instant to its end.
    first = arguments(tmp_path, tenant, "v0")
    started = time.monotonic()
    start_promotion(first).join()
    took = time.monotonic() - started
    before, killed, number = {"old": tmp_path / "models" / "v0"}, 0, 0
    while killed < (60 if full else 8):
        number += 1
        assert number < 1000, "every promotion ended before it was killed"
        one = arguments(tmp_path, tenant, f"m{number}", before)
        killed += kill_after(start_promotion(one), chance.uniform(0, took))
        moved = [record for record in check_consistent(registry) if record["moves_to"]]
        if moved[-1]["model"] == str(tmp_path / "models" / f"m{number}"):
            before = {"old": tmp_path / "models" / f"m{number}"}
    # The next promotion that ends takes away what the killed ones left.
    assert promote_main(arguments(tmp_path, tenant, "last", before)) == 0
    versions = {record["moves_to"]["version"] for record in check_consistent(registry) if record["moves_to"]}
    assert {folder.name for folder in (registry / "fivedoctors" / "models").iterdir()} == versions


def test_a_last_line_without_its_end_is_a_decision(tmp_path, tenant, registry, capsys):
    """An editor drops the last line's end: nothing is lost, and the next decision follows it."""
    promote_three(tmp_path, tenant)
    assert promote_main(arguments(tmp_path, tenant, "four")) == 1  # compares with no champion: moves nothing
    ledger = registry / "fivedoctors" / "decisions.jsonl"
    ledger.write_bytes(ledger.read_bytes().removesuffix(b"\n"))
    assert of_registry(decisions_command, registry, tenant) == 0
    assert "4 decisions, all signed and in order" in capsys.readouterr().out
    assert of_registry(rollback, registry, tenant) == 0
    assert of_registry(decisions_command, registry, tenant) == 0
    assert "5 decisions, all signed and in order" in capsys.readouterr().out


def test_a_ledger_that_is_gone_is_missed_as_long_as_a_champion_is_named(tmp_path, tenant, registry, capsys):
    promote_three(tmp_path, tenant)
    (registry / "fivedoctors" / "decisions.jsonl").unlink()
    assert of_registry(decisions_command, registry, tenant) == 1
    assert "no line decides" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["half a \ud83d sign", "\x1b[31mred", "\u202eturned", "two\nlines", "[/bold]"])
def test_any_reason_is_kept_and_cannot_steer_the_terminal(tmp_path, tenant, registry, capsys, reason):
    promote_three(tmp_path, tenant)
    assert of_registry(rollback, registry, tenant, "--reason", reason) == 0
    capsys.readouterr()
    assert of_registry(decisions_command, registry, tenant) == 0
    shown = capsys.readouterr().out
    assert not set("\x1b\u202e\ud83d") & set(shown)
    with open_registry(registry, "fivedoctors", SECRET.encode()) as opened:
        assert opened.records[-1]["reason"] == reason
