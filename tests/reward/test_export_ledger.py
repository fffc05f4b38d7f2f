"""The export: what was paid for, for people and spreadsheets; bad input is one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from reward.export_ledger import main
from reward.ledger.ledger import Ledger
from reward.records.call import Call, CallKind, CallTrace, FailureKind, ServiceFailure
from reward.settings.recipe import LedgerSettings
from tests.support.commands import run_python


def record(path: Path, run: str, tenant: str = "fivedoctors") -> Ledger:
    """Per run: 4 judge calls answered, of which one by a batched call of two, a judge time-out, a retrieval."""
    ledger = Ledger(LedgerSettings(path=path, run_id=run, cny_per_usd=7.0))
    for number, (seconds, shared_by) in enumerate([(1.0, 1), (2.0, 1), (3.0, 2), (3.0, 2)]):
        call = Call(CallKind.JUDGE, f"{run}-{number}", "deepseek@v3.1", tenant)
        trace = CallTrace(seconds, 0.0, 2, 100, 50, 10, shared_by)
        ledger.record(call, {"改写质量": number, "评分理由": "\ud800好"}, trace, 0.7)
    failure = ServiceFailure("no answer", FailureKind.TIMEOUT)
    ledger.record(Call(CallKind.JUDGE, "late", "deepseek@v3.1", tenant), failure, CallTrace(60.0, 0.0, 3), 0.0)
    ledger.record(Call(CallKind.RAG, "鱼油", "http://rag", tenant), {"hits": []}, CallTrace(0.1, 0.0, 1), 0.0)
    return ledger


def export(ledger: Path, out: Path, *options: str) -> int:
    return main(["--ledger", str(ledger), "--out", str(out), *options])


def test_judgements_and_usage(tmp_path, capsys):
    ledger = record(tmp_path / "ledger.sqlite", "rl-1")
    record(tmp_path / "ledger.sqlite", "rl-2", "chengla")
    assert export(tmp_path / "ledger.sqlite", tmp_path / "out") == 0  # while both are open
    ledger.close()

    lines = [json.loads(line) for line in (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    line = lines[3]
    assert line.pop("time").startswith("20")
    assert line == {
        "run": "rl-1",
        "tenant": "fivedoctors",
        "service": "deepseek@v3.1",
        "key": "rl-1-3",
        "value": {"改写质量": 3, "评分理由": "\ud800好"},
        "tokens": {"input": 100, "cached": 50, "output": 10},
        "cost": {"cny": 0.7, "usd": pytest.approx(0.1)},
    }

    usage = pd.read_csv(tmp_path / "out" / "usage.csv")
    assert list(usage.columns) == [
        *("day", "run", "tenant", "kind", "service", "status", "answers", "calls", "attempts", "estimated"),
        *("input_tokens", "cached_tokens", "output_tokens", "cny", "usd", "latency_p50", "latency_p95"),
    ]
    assert len(usage) == 6
    judged = usage[(usage.run == "rl-1") & (usage.kind == "judge") & (usage.status == "ok")].iloc[0]
    assert (judged.answers, judged.calls, judged.attempts) == (4, 3, 6)
    assert (judged.input_tokens, judged.cached_tokens, judged.output_tokens) == (400, 200, 40)
    assert (judged.cny, judged.usd, judged.latency_p50, judged.latency_p95) == (2.8, 0.4, 2.5, 3.0)
    assert set(usage.status) == {"ok", "timeout"}

    table = capsys.readouterr().out
    assert "timeout" in table and "5.60" in table and "0.80" in table


def test_one_run_or_one_tenant(tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    record(ledger, "rl-1")
    record(ledger, "rl-2", "chengla")
    assert export(ledger, tmp_path / "run", "--run", "rl-2") == 0
    assert set(pd.read_csv(tmp_path / "run" / "usage.csv").run) == {"rl-2"}
    assert len((tmp_path / "run" / "judgements.jsonl").read_text().splitlines()) == 4
    assert export(ledger, tmp_path / "tenant", "--tenant", "fivedoctors") == 0
    assert set(pd.read_csv(tmp_path / "tenant" / "usage.csv").tenant) == {"fivedoctors"}


def test_the_ledger_is_not_touched(tmp_path):
    record(tmp_path / "ledger.sqlite", "rl-1").close()
    before = (tmp_path / "ledger.sqlite").read_bytes()
    assert export(tmp_path / "ledger.sqlite", tmp_path / "out") == 0
    assert (tmp_path / "ledger.sqlite").read_bytes() == before


def test_bad_input_is_one_line_and_leaves_the_earlier_files(tmp_path, capsys):
    ledger, out = tmp_path / "ledger.sqlite", tmp_path / "out"
    record(ledger, "rl-1").close()
    assert export(ledger, out) == 0
    before = [(out / name).read_bytes() for name in ("judgements.jsonl", "usage.csv")]
    capsys.readouterr()
    (tmp_path / "cut.sqlite").write_bytes(ledger.read_bytes()[:5000])
    Ledger(LedgerSettings(path=tmp_path / "empty.sqlite", run_id="rl")).close()
    (tmp_path / "file").write_text("")
    for line, arguments in {
        "missing.sqlite: no such file": (tmp_path / "missing.sqlite", out),
        "cut.sqlite: the ledger is damaged": (tmp_path / "cut.sqlite", out),
        "empty.sqlite: holds no call": (tmp_path / "empty.sqlite", out),
        "holds no call of run 'rl-9' and tenant 'zlkt'; it holds rl-1 (fivedoctors)": (
            *(ledger, out, "--run", "rl-9"),
            *("--tenant", "zlkt"),
        ),
        "file/judgements.jsonl": (ledger, tmp_path / "file"),
    }.items():
        assert export(*arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and line in told
    assert [(out / name).read_bytes() for name in ("judgements.jsonl", "usage.csv")] == before
    assert not (tmp_path / "missing.sqlite").exists()


def test_the_command(tmp_path):
    record(tmp_path / "ledger.sqlite", "rl-1").close()
    ledger = str(tmp_path / "ledger.sqlite")
    ran = run_python("-m", "reward.export_ledger", "--ledger", ledger, "--out", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "usage.csv" in ran.stdout
