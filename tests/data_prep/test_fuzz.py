"""Whatever is in a file, a build ends with samples and their accounts, or with one line: it neither falls nor hangs nor
takes the machine's memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.build_mutants import Built
from tests.support.commands import run_python
from tests.support.hostile_exports import MUTATORS, ROWS, good_row, write_bombs, write_mutants

WORKERS = 2
MOST_MB = 1024


def build_all(files: Sequence[Path], out: Path) -> list[Built]:
    """Each of `files` on its own, in `WORKERS` processes."""

    def work(share: Sequence[Path]) -> list[Built]:
        run = run_python("-m", "tests.support.build_mutants", str(out), *map(str, share), timeout=1200)
        found = [Built(**json.loads(line)) for line in run.stdout.splitlines()]
        assert not run.returncode, f"{share[len(found)].name} ended its process with {run.returncode}:\n{run.stderr}"
        return found

    with ThreadPoolExecutor(WORKERS) as pool:
        return [built for share in pool.map(work, [files[n::WORKERS] for n in range(WORKERS)]) for built in share]


def check(built: Built) -> None:
    assert built.peak_mb < MOST_MB, built
    if built.code:
        assert built.code == 2, built
        assert built.error.startswith("error: ") and built.error.count("\n") == 1 and built.error.endswith("\n"), built
    else:
        assert not built.error and built.samples > 0, built
        assert built.rows_in == built.samples + built.quarantined, built


@pytest.mark.parametrize("count", [None, pytest.param(320, marks=pytest.mark.slow)])
def test_mutants_of_every_kind(tmp_path: Path, full: bool, count: int | None) -> None:
    count = count or (96 if full else 2 * len(MUTATORS))
    files = write_mutants(tmp_path / "in", seed=0, count=count)
    found = build_all(files, tmp_path / "out")
    assert len(found) == len(files) == count
    for built in found:
        check(built)
    # The mutants are worth something: some break their file, some only their rows, and each kind of file survives some.
    outcomes = Counter("refused" if built.code else "whole" if not built.quarantined else "part" for built in found)
    assert min(outcomes["refused"], outcomes["part"]) > count / 11 and outcomes["whole"] > 0, outcomes
    survivors = {built.file.partition(".")[2] for built in found if not built.code}
    assert survivors >= {"xlsx", "csv", "jsonl", "log.gz"}, survivors


@pytest.mark.full
def test_files_that_unpack_to_far_more_than_they_are(tmp_path: Path) -> None:
    files = write_bombs(tmp_path / "in")
    found = {built.file: built for built in build_all(files, tmp_path / "out")}
    assert set(found) == {file.name for file in files}
    for built in found.values():
        check(built)
    assert found["then.jsonl.zst"].rows_in == found["then.jsonl.zst"].samples + 1, "the good lines before the bomb stay"


@pytest.mark.parametrize("seed", [1])
def test_a_good_file_among_bad_ones_is_built(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "in"
    write_mutants(folder, seed, count=32)
    lines = (json.dumps(good_row(1000 + number), ensure_ascii=False) for number in range(ROWS))
    (folder / "good.jsonl").write_text("\n".join(lines), encoding="utf-8")
    [built] = build_all([folder], tmp_path / "out")
    check(built)
    assert built.code == 0 and built.samples >= ROWS
