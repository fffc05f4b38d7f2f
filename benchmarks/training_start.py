"""How long does a training run on this machine take to its first step, and which of its processes take the CPU?

    python -m benchmarks.training_start [--runs 3] [--out DIR]

Starts GRPO of a tiny model on CPU as a user does (`recipes/run.sh`), with retrieval on loopback, and watches its
processes ten times a second until it has ended: checks, imports, Ray, the rollout engine, one step, checkpoint, merge.
The first step counts from the moment at which its rollouts are scored. CPU seconds are user and system time; a process
that lives for less than a tenth of a second is not seen. The table shows the run with the fewest CPU seconds; the last
line is JSON: minimum and median over the runs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.reward_runs.loopback_services import loopback_services
from benchmarks.step_overhead import ROOT, prepare, recipe_command
from reward.records.commands import command
from reward.records.files import BadInput
from reward.records.run_files import METRICS_FILE

SECONDS_BETWEEN_LOOKS = 0.1


@dataclass
class Seen:
    """One process: its name, and its CPU seconds until the first step and until the last look at it."""

    name: str
    until_first_step: float = 0.0
    in_all: float = 0.0


@dataclass(frozen=True)
class Start:
    """One run; in seconds."""

    first_step: float
    end: float
    processes: list[Seen]

    def figures(self) -> dict[str, float]:
        return {
            "first_step_seconds": self.first_step,
            "first_step_cpu": sum(process.until_first_step for process in self.processes),
            "end_seconds": self.end,
            "end_cpu": sum(process.in_all for process in self.processes),
        }


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_start", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=3, help="at least 1 (default 3)")
    parser.add_argument("--out", type=Path, help="folder for data and runs, kept (default: a temporary one)")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error("--runs: at least 1")
    with TemporaryDirectory() as temporary:
        out = (args.out or Path(temporary)).resolve()
        data, model = prepare(out)
        with loopback_services(seed=0, scale=1.0) as services:
            url = f"rewriter.tenant.rag.url={services.rag.url}"
            starts = [watch(out / f"run{run}", data, model, url) for run in range(1, args.runs + 1)]
    best = min(starts, key=lambda start: start.figures()["first_step_cpu"])
    table = Table("process", "CPU s to the first step", "in all", title=f"the cheapest of {args.runs} runs")
    for process in sorted(best.processes, key=lambda process: -process.in_all):
        table.add_row(process.name, f"{process.until_first_step:.2f}", f"{process.in_all:.2f}")
    Console(width=120).print(table)
    figures = [start.figures() for start in starts]
    summary = {
        name: {"min": round(min(values), 1), "median": round(median(values), 1)}
        for name in figures[0]
        for values in [[run[name] for run in figures]]
    }
    print(json.dumps(summary))
    return 0


def watch(output: Path, data: Path, model: Path, *overrides: str) -> Start:
    """Train one step and return what it took.

    Raises:
        BadInput: the run failed.
    """
    sizes = {"prompts_per_step": 4, "prompts_per_update": 4, "group_size": 4, "micro_batch": 16, "max_new_tokens": 8}
    small = [f"recipe.rl.{name}={size}" for name, size in sizes.items()]
    words = recipe_command(output, data, model, 1, [*small, *overrides])
    log = output.with_suffix(".log")
    print(f"{output.name}: log in {log}", file=sys.stderr)
    began, first_step = time.monotonic(), 0.0
    seen: dict[psutil.Process, Seen] = {}
    with log.open("wb") as out, psutil.Popen(words, cwd=ROOT, stdout=out, stderr=out) as run:
        while run.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            _look(run, seen)
            if not first_step and (output / METRICS_FILE).is_file():
                first_step = time.monotonic() - began
                for process in seen.values():
                    process.until_first_step = process.in_all
    if run.returncode or not first_step:
        raise BadInput(f"the run ended with exit code {run.returncode}; see {log}")
    return Start(first_step, time.monotonic() - began, list(seen.values()))


def _look(run: subprocess.Popen, seen: dict[psutil.Process, Seen]) -> None:
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            words, times = process.cmdline(), process.cpu_times()
        except psutil.Error:
            continue
        record = seen.setdefault(process, Seen(_name(words)))
        if words:
            record.name = _name(words)
        record.in_all = times.user + times.system


def _name(words: list[str]) -> str:
    """Say what a process is: Ray's title, or the module, script or program that runs."""
    if not words:
        return "ended"
    if "::" in words[0]:
        return words[0].split(".")[0]
    found = re.search(r"-m ([\w.]+)|([\w-]+)\.py\b", " ".join(words))
    return next(filter(None, found.groups())) if found else Path(words[0]).name


if __name__ == "__main__":
    raise SystemExit(main())
