"""A disk that refuses to take more: one line, exit code 2, and what was there before stays."""

import json
import resource
import subprocess
from pathlib import Path

from tests.support.commands import run_python

BUILD = ["-m", "data_prep.build_rl", "--tenant", "fivedoctors"]


def rows(number: int) -> str:
    row = {"rewritten_query": "鱼油 用法用量", "success": True, "recall_results": "[]", "recall_count": 1}
    return "\n".join(json.dumps({**row, "original_query": f"鱼油第{i}种吃法"}) for i in range(number))


def build(source: Path, out: Path, largest_file: int | None = None) -> subprocess.CompletedProcess:
    def limit() -> None:
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return run_python(*BUILD, "--input", str(source), "--out", str(out), "--split", "train", preexec_fn=limit)


def test_a_write_that_fails_leaves_the_earlier_data_set(tmp_path):
    source, out = tmp_path / "export.jsonl", tmp_path / "out"
    source.write_text(rows(20))
    assert build(source, out).returncode == 0
    before = (out / "rl_train.jsonl").read_bytes(), (out / "rl_train.parquet").read_bytes()

    source.write_text(rows(2000))
    result = build(source, out, largest_file=50_000)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1 and result.stderr.startswith("error: ")
    assert "rl_train" in result.stderr
    assert (out / "rl_train.jsonl").read_bytes() == before[0]
    assert (out / "rl_train.parquet").read_bytes() == before[1]

    assert build(source, out).returncode == 0
    assert len((out / "rl_train.jsonl").read_text().splitlines()) == 2000
