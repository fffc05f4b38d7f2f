"""A command in a process of its own: what it printed last, how long it ran, and the most memory it held."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import psutil

_EVERY = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class CommandRun:
    """`peak_mb`: resident megabytes of the process and its children together, at the worst moment seen, `peak_at`
    seconds after the start. What they share counts in each: asking for less than that (PSS) slows them down."""

    last_line: str
    seconds: float
    peak_mb: float
    peak_at: float


def run_measured(arguments: Sequence[str]) -> CommandRun:
    """Run `python -m …` with these arguments and look at its memory every 20 ms.

    Raises:
        RuntimeError: it did not exit with 0 (with what it wrote).
    """
    with TemporaryFile("w+", encoding="utf-8") as written:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=written, stderr=subprocess.STDOUT)
        peak = peak_at = 0.0
        while process.poll() is None:
            resident = _resident(process.pid)
            if resident > peak:
                peak, peak_at = resident, time.perf_counter() - start
            time.sleep(_EVERY)
        seconds = time.perf_counter() - start
        written.seek(0)
        out = written.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} exited with {process.returncode}: {out}")
    return CommandRun((out.splitlines() or [""])[-1], seconds, peak / 2**20, peak_at)


def _resident(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended while we looked
    return total
