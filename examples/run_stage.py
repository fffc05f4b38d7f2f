"""Run one stage of the quick start and record what it cost.

`python -m examples.run_stage --name NAME --costs costs.json -- COMMAND [ARG ...]` runs the command in the foreground,
then adds its wall seconds and the peak memory of its whole process tree (GB, proportional set size) under NAME. A
stage that skips its work because it is finished keeps the cost of the run that did it (`--keep-below SECONDS`).
With `--trainer-log FILE` the command's output, which is a trainer's and for experts, goes to that file, and one line
of progress is shown instead; with `--steps N` beside it, how long the rest will take as soon as a step's time is known.
Exits with the command's status.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

SAMPLING_SECONDS = 1.0
# A look at a trainer takes 0.1 s of the kernel's time, and holds up the processes looked at.
MOST_SHARE = 0.02
# verl's console logger: "step:12 - train/loss:0.31 - ..."; what a person wants to see of it, under its short name.
_STEP = re.compile(r"step:(\d+) - (.*)")
_SHOWN = {
    "train/loss": "loss",
    "avg_reward": "reward",
    "8b_win_rate": "win rate",
    "response_length/mean": "tokens",
    "abstained": "abstained",
}
_LINES_ON_FAILURE = 12
INTERRUPTED = (130, 143, -signal.SIGTERM, -signal.SIGINT)


def tree_memory(pid: int) -> float:
    """Measure the GB of memory held by the process and its descendants, shared pages divided among their users."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended between the listing and the look
    return total / 2**30


def record_cost(costs: Path, name: str, seconds: float, peak_gb: float, keep_below: float) -> None:
    """Add or replace the cost of one stage; a run shorter than `keep_below` never replaces an earlier cost."""
    recorded = json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else {}
    if name in recorded and seconds < keep_below:
        return
    recorded[name] = {"seconds": round(seconds, 1), "peak_gb": round(peak_gb, 2)}
    partial = costs.with_name(costs.name + ".partial")
    partial.write_text(json.dumps(recorded, indent=1), encoding="utf-8")
    partial.replace(costs)


def step_of(line: str) -> tuple[int, dict[str, str]] | None:
    """Parse a trainer's step: its number and metrics; None for any other line."""
    step = _STEP.search(line)
    if step is None:
        return None
    metrics = dict(part.split(":", 1) for part in step.group(2).split(" - ") if ":" in part)
    return (int(step.group(1)), metrics) if metrics.keys() & _SHOWN.keys() else None


def progress_of(line: str) -> str | None:
    """Return one trainer step in a short line for people, None for any other line."""
    found = step_of(line)
    if found is None:
        return None
    number, metrics = found
    shown = [f"{name} {float(metrics[key]):.3f}" for key, name in _SHOWN.items() if key in metrics]
    return f"step {number:>4}  " + "  ".join(shown)


class Estimate:
    """Says once how long the rest of `steps` steps will take: after the first step where the trainer names its time
    (`timing_s/step`), else after the second."""

    def __init__(self, steps: int):
        self._steps, self._said, self._last = steps, False, 0.0

    def after(self, line: str, now: float) -> str | None:
        """Return the sentence when `line`, read at `now` seconds, makes it known; None before and afterwards."""
        found = step_of(line)
        if self._said or found is None:
            return None
        number, metrics = found
        seconds = float(metrics["timing_s/step"]) if "timing_s/step" in metrics else self._last and now - self._last
        self._last = now
        if not seconds:
            return None
        self._said = True
        left = self._steps - number
        return f"{seconds:.1f} s a step: about {left * seconds / 60:.0f} min for the {left} steps that are left"


def follow(process: subprocess.Popen[str], log: Path, estimate: Estimate | None = None) -> None:
    """Copy the command's output to `log`, showing its steps and, as soon as it is known, the time that is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    live = sys.stdout.isatty()
    last_shown = 0.0
    assert process.stdout is not None
    with log.open("w", encoding="utf-8") as out:
        for line in process.stdout:
            out.write(line)
            out.flush()
            progress = progress_of(line)
            if estimate and (sentence := estimate.after(line, time.monotonic())):
                print(f"\r\033[K{sentence}" if live else sentence, flush=True)
            # A terminal is rewritten in place; a file gets a line every few seconds.
            if progress and (live or time.monotonic() - last_shown > 5):
                last_shown = time.monotonic()
                print(f"\r\033[K{progress}" if live else progress, end="" if live else "\n", flush=True)
    if live:
        print()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.run_stage", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--costs", required=True, type=Path, help="JSON file: {stage: {seconds, peak_gb}}")
    parser.add_argument("--keep-below", type=float, default=8.0, help="see above (default 8 s)")
    parser.add_argument("--trainer-log", type=Path, help="write the output there and show only the steps")
    parser.add_argument("--steps", type=int, help="of the trainer in all")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    started, peak = time.monotonic(), 0.0
    piped: dict[str, Any] = {}
    if args.trainer_log:
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = subprocess.Popen(command, **piped)
    # A signal to end goes on to the command; the stage waits until the command has ended its own processes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.terminate())
    # Memory is looked at while the command runs: afterwards it is gone.
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        pause = SAMPLING_SECONDS
        while not done.wait(pause):
            begun = time.thread_time()
            peak = max(peak, tree_memory(process.pid))
            pause = max(SAMPLING_SECONDS, (time.thread_time() - begun) / MOST_SHARE)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    if args.trainer_log:
        follow(process, args.trainer_log, Estimate(args.steps) if args.steps else None)
    status = process.wait()
    done.set()
    if args.trainer_log and status not in (0, *INTERRUPTED):
        lines = args.trainer_log.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join(lines[-_LINES_ON_FAILURE:]), file=sys.stderr)
        print(f"error: {args.name} failed with status {status}; all of its output: {args.trainer_log}", file=sys.stderr)
    # A failed stage costs nothing on record: its next run does the work again.
    if status == 0:
        args.costs.parent.mkdir(parents=True, exist_ok=True)
        record_cost(args.costs, args.name, time.monotonic() - started, peak, args.keep_below)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
