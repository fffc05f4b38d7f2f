"""How fast and how lean is data preparation, beside what a script would do?

    python -m benchmarks.data_prep [--rows 200000] [--lines 1000000] [--seed 0]

A workbook of a BVT export's nine columns and a production log are generated into a temporary folder (seeded; at full
size 1.3 GB): Chinese questions, recorded hits, repeated and nearly repeated questions, 1 % broken rows, 2 % with
personal data (`benchmarks.data_prep_runs.inputs`). Then, each in a process of its own:

- reading, from file to canonical rows: `data_prep.readers.workbook` beside pandas with openpyxl and a loop over its
  rows, `data_prep.readers.log_file` beside a loop of `json.loads` (`benchmarks.data_prep_runs.readers`). All must find
  the same rows;
- the whole build, `python -m data_prep.build_sft` on both files at once, by the seconds of its stages.

Memory is resident, of a process and its children together, looked at every 20 ms. Seconds of reading leave out the
imports, those of the build do not. The last line is JSON; `…_speedup` are the peers' seconds over this project's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.data_prep_runs.inputs import write_log, write_workbook
from benchmarks.data_prep_runs.measured_command import run_measured
from benchmarks.data_prep_runs.readers import Reading
from benchmarks.progress import progress_bar

ROWS, LINES = 200_000, 1_000_000
TENANT = "fivedoctors"


@dataclass(frozen=True)
class Measured:
    """One way of reading one file, and the most memory it held."""

    way: str
    reading: Reading
    peak_mb: float


@dataclass(frozen=True)
class Build:
    """The whole build: wall seconds, those of its stages, rows in and kept, the most memory it held and when."""

    seconds: float
    stages: dict[str, float]
    rows_in: int
    rows_kept: int
    peak_mb: float
    peak_at: float


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_prep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of the workbook (default {ROWS})")
    parser.add_argument("--lines", type=int, default=LINES, help=f"of the log (default {LINES})")
    parser.add_argument("--seed", type=int, default=0, help="of everything generated (default 0)")
    args = parser.parse_args(argv)
    with (
        TemporaryDirectory(prefix="data_prep_benchmark_") as folder,
        progress_bar() as progress,
    ):
        xlsx, log = Path(folder, "bvt.xlsx"), Path(folder, "requests.jsonl")
        _generate(
            progress, "writing the workbook", args.rows, lambda show: write_workbook(xlsx, args.rows, args.seed, show)
        )
        _generate(progress, "writing the log", args.lines, lambda show: write_log(log, args.lines, args.seed, show))
        # The same file, read by us and by the peer, each in a process of its own.
        readings = {
            name: [_read(progress, way, file) for way in ways]
            for name, file, ways in (
                ("xlsx", xlsx, ("read_workbook", "pandas+openpyxl")),
                ("log", log, ("read_logs", "json.loads loop")),
            )
        }
        build = _build(progress, [xlsx, log], Path(folder, "out"))
    console = Console()
    for name, (ours, peer) in readings.items():
        _check_same(ours, peer)
        console.print(_reading_table(name, [ours, peer]))
    console.print(_build_table(build))
    metrics: dict[str, Any] = {
        f"{name}_{what}": round(value, 3)
        for name, (ours, peer) in readings.items()
        for what, value in (("speedup", peer.reading.seconds / ours.reading.seconds), ("peak_mb", ours.peak_mb))
    }
    metrics |= {
        "build_rows_per_s": round(build.rows_in / build.seconds, 1),
        "build_peak_mb": round(build.peak_mb, 1),
        "build_stage_seconds": build.stages,
    }
    print(json.dumps(metrics))
    return 0


def _generate(progress: Progress, name: str, total: int, write: Callable[[Callable[[int], None]], None]) -> None:
    task = progress.add_task(name, total=total)
    write(lambda done: progress.update(task, completed=done))


def _read(progress: Progress, way: str, file: Path) -> Measured:
    task = progress.add_task(f"reading {file.name}: {way}", total=1)
    run = run_measured(["benchmarks.data_prep_runs.readers", way, str(file)])
    progress.update(task, completed=1)
    return Measured(way, Reading(**json.loads(run.last_line)), run.peak_mb)


def _build(progress: Progress, files: list[Path], out: Path) -> Build:
    task = progress.add_task("the whole build", total=1)
    run = run_measured(["data_prep.build_sft", "--input", *map(str, files), "--tenant", TENANT, "--out", str(out)])
    progress.update(task, completed=1)
    stats = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    header = json.loads((out / "dataset_latest.json").read_text(encoding="utf-8"))
    return Build(run.seconds, header["seconds"], stats["rows_in"], stats["rows_kept"], run.peak_mb, run.peak_at)


def _check_same(ours: Measured, peer: Measured) -> None:
    """Refuse a comparison of two ways that do not find the same rows: a faster way to other rows would prove nothing.

    Raises:
        RuntimeError: the two did not find the same.
    """
    a, b = ours.reading, peer.reading
    same = (a.rows, a.refused, a.characters) == (b.rows, b.refused, b.characters)
    if not same or not math.isclose(a.top1_total, b.top1_total, rel_tol=1e-9):
        raise RuntimeError(f"{ours.way} and {peer.way} do not read the same: {a} {b}")


def _reading_table(name: str, measured: list[Measured]) -> Table:
    first = measured[0].reading
    table = Table(title=f"{name}: {first.rows:,} rows, {first.refused:,} of them refused", title_justify="left")
    table.add_column("way of reading")
    for title in ("seconds", "rows/s", "peak MB", "times ours"):
        table.add_column(title, justify="right")
    for one in measured:
        seconds = one.reading.seconds
        table.add_row(
            one.way,
            f"{seconds:.2f}",
            f"{one.reading.rows / seconds:,.0f}",
            f"{one.peak_mb:,.0f}",
            f"{seconds / first.seconds:.1f}",
        )
    return table


def _build_table(build: Build) -> Table:
    table = Table(title=f"build: {build.rows_in:,} rows in", title_justify="left")
    table.caption = f"{build.rows_kept:,} rows kept, peak {build.peak_mb:,.0f} MB after {build.peak_at:.0f} s"
    table.add_column("stage")
    for heading in ("seconds", "rows/s"):
        table.add_column(heading, justify="right")
    for stage, seconds in (*build.stages.items(), ("all, from start to exit", build.seconds)):
        table.add_row(stage, f"{seconds:.2f}", f"{build.rows_in / seconds:,.0f}" if seconds else "")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
