"""The data benchmark: its inputs are what it says they are, and one small run of everything it measures."""

import json
from collections import Counter

import pytest

from benchmarks import data_prep
from benchmarks.data_prep_runs.inputs import XLSX_HITS, questions, write_log, write_workbook
from benchmarks.data_prep_runs.measured_command import run_measured
from benchmarks.data_prep_runs.readers import WAYS

ROWS = 4000


def nothing(done: int) -> None:
    pass


def test_inputs_are_seeded(tmp_path):
    files = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_log(tmp_path / name, 300, seed, nothing)
        files[name] = (tmp_path / name).read_bytes()
    assert files["a"] == files["b"] != files["c"]


def test_inputs_have_the_shares_they_should():
    asked = list(questions(ROWS, XLSX_HITS, seed=0))
    assert 0.005 < sum(one.broken >= 0 for one in asked) / ROWS < 0.015
    texts = [f"{one.query} {one.profile} {one.summary}" for one in asked]
    marks = ("1381234", "wx_health", "@example.com", "车牌京A", "建国路", "我是李")
    assert 0.012 < sum(any(mark in text for mark in marks) for text in texts) / ROWS < 0.03
    seen = Counter(one.query for one in asked)
    assert 0.08 < 1 - len(seen) / ROWS < 0.2
    assert all(len(json.loads(one.recall)) == XLSX_HITS and one.scores == sorted(one.scores)[::-1] for one in asked)


@pytest.mark.parametrize(
    ("write", "suffix", "ways"),
    [
        (write_workbook, ".xlsx", ("read_workbook", "pandas+openpyxl")),
        (write_log, ".jsonl", ("read_logs", "json.loads loop")),
    ],
)
def test_all_ways_read_the_same(tmp_path, write, suffix, ways):
    file = tmp_path / f"in{suffix}"
    write(file, ROWS, 0, nothing)
    ours, peer = (WAYS[way](file) for way in ways)
    assert ours[:3] == peer[:3] and ours[3] == pytest.approx(peer[3])
    rows, refused, *_ = ours
    assert rows == ROWS and 0.005 < refused / ROWS < 0.015


def test_a_command_is_measured_with_its_children_and_fails_loudly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "holds_memory.py"
    child = "import time; held = b'x' * (200 << 20); time.sleep(1)"
    module.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\nprint('done')\n")
    run = run_measured(["holds_memory"])
    assert run.last_line == "done" and 200 < run.peak_mb < 400
    module.write_text("raise SystemExit('it went wrong')")
    with pytest.raises(RuntimeError, match="it went wrong"):
        run_measured(["holds_memory"])


@pytest.mark.full
def test_the_command_prints_its_metrics(capsys):
    assert data_prep.main(["--rows", "2000", "--lines", "5000"]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(out.splitlines()[-1])
    stages = metrics.pop("build_stage_seconds")
    assert set(stages) >= {"read", "clean", "near_duplicates", "split", "write"}
    assert set(metrics) == {
        "xlsx_speedup",
        "log_speedup",
        "xlsx_peak_mb",
        "log_peak_mb",
        "build_rows_per_s",
        "build_peak_mb",
    }
    assert all(value > 0 for value in metrics.values())
    assert "build: 7,000 rows in" in out and "pandas+openpyxl" in out and "json.loads loop" in out
