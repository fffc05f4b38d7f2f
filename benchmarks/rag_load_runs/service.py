"""The service in a process of its own, asked by client processes; and the mixed minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import psutil

from benchmarks.rag_load_runs.runs import Load
from benchmarks.rag_load_runs.texts import Question
from benchmarks.rag_load_runs.traffic import Traffic

READERS = 8
_CLIENT_PROCESSES = 2


@dataclass(frozen=True)
class Mix:
    """Of the mixed minutes. Milliseconds; resident megabytes of the server at the end, and how they grew a minute."""

    seconds: float
    searches: int
    p50: float
    p99: float
    writes: int
    write_p50: float
    rebuilds: int
    rss_mb: float
    rss_slope: float
    errors: list[str]


@dataclass(frozen=True)
class Server:
    url: str
    pid: int


@contextmanager
def serving(data: Path, *options: str) -> Iterator[Server]:
    """Run `rag.serve` in a process of its own, on a free port, with further command-line `options`.

    Raises:
        RuntimeError: it did not start.
    """
    command = [sys.executable, "-m", "rag.serve", "--index", str(data), "--port", "0", *options]
    # Its log, a line a request, is not what is measured.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("serving on ")), None)
        if line is None:
            raise RuntimeError(f"rag.serve exited with {process.wait()}")
        threading.Thread(target=process.stdout.read, daemon=True).start()  # its further output must not fill the pipe
        yield Server(line.split()[2], process.pid)
    finally:
        process.terminate()
        process.wait()


def load_http(url: str, questions: Sequence[Question], clients: int) -> Load:
    """Ask the questions over HTTP from at most two client processes."""
    processes = min(clients, _CLIENT_PROCESSES)
    running = [
        _Client("read", url, str(clients // processes), questions=questions[place::processes])
        for place in range(processes)
    ]
    for client in running:
        client.go()
    found = [client.traffic() for client in running]
    milliseconds = [value for one in found for value in one.milliseconds]
    return Load(milliseconds, max(one.seconds for one in found), sum(len(one.errors) for one in found))


def mix_http(server: Server, tenants: Sequence[str], passages: int, seconds: float, seed: int) -> Mix:
    """Read and write for `seconds`; after a quarter of the time, build the last tenant's index anew."""
    options = ["--seconds", str(seconds), "--seed", str(seed), "--passages", str(passages), "--tenants", *tenants]
    client = _Client("mix", server.url, str(READERS), *options)
    client.go()
    resident, process, started = [], psutil.Process(server.pid), monotonic()
    knowledge_base = f"{server.url}/api/tenants/{tenants[-1]}/knowledge_bases/default"
    before, asked = _json(knowledge_base)["version"]["id"], False
    while monotonic() - started < seconds:
        resident.append((monotonic() - started, process.memory_info().rss / 2**20))
        if not asked and resident[-1][0] > seconds / 4:
            asked = _json(f"{knowledge_base}/rebuild", method="POST")["started"]
        sleep(min(1.0, seconds / 30))
    # The first third is warm-up: caches fill and the rebuild runs.
    traffic = client.traffic()
    late = np.array(resident[len(resident) // 3 :])
    state = _json(knowledge_base)
    errors = list(traffic.errors)
    if state["rebuild_failure"]:
        errors.append(f"rebuild: {state['rebuild_failure']}")
    p50, p99 = np.percentile(traffic.milliseconds, [50, 99])
    return Mix(
        seconds,
        len(traffic.milliseconds),
        float(p50),
        float(p99),
        traffic.writes,
        float(np.median(traffic.write_milliseconds)),
        int(state["version"]["id"] != before),
        resident[-1][1],
        60 * float(np.polyfit(late[:, 0], late[:, 1], 1)[0]),
        errors,
    )


class _Client:
    """A client process, its connections open, that waits for `go`."""

    def __init__(self, *arguments: str, questions: Sequence[Question] = ()):
        command = [sys.executable, "-m", "benchmarks.rag_load_runs.traffic", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._stdin.write("".join(f"{json.dumps([q.tenant, q.text])}\n" for q in questions) + "\n")
        self._stdin.flush()
        self._stdout.readline()

    def go(self) -> None:
        self._stdin.close()

    def traffic(self) -> Traffic:
        """Wait for its end and return what it saw.

        Raises:
            RuntimeError: it failed.
        """
        report = self._stdout.read()
        if self._process.wait():
            raise RuntimeError(f"a client process exited with {self._process.returncode}")
        return Traffic(**json.loads(report))


def _json(url: str, method: str = "GET") -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as response:
        found: dict[str, Any] = json.load(response)
    return found
