"""The well-behaved tenant: searches, clicks and small documents at a steady pace, each timed from when it was due."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import quote

import numpy as np

TENANT = "victim"
# A second, on connections of their own.
SEARCHES, CLICKS, DOCUMENTS = 20.0, 2.0, 0.5
KINDS = ("search", "click", "document")
_SECONDS = 60.0  # after which a request counts as an error


@dataclass
class Timings:
    """Milliseconds by kind of request, and what went wrong."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    errors: list[str] = field(default_factory=list)

    def p99(self, kind: str = "search") -> float:
        values = self.milliseconds[kind]
        return float(np.percentile(values, 99)) if values else float("nan")


class Victim:
    """Sends from `start` to `stop`; `take` returns the timings since it was last called."""

    def __init__(self, host: str, port: int, key: str, questions: Iterator[str]):
        self._address, self._key, self._questions = (host, port), key, questions
        self._timings = Timings()
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._numbers = count()
        work: list[tuple[str, float, Callable[[], tuple[str, str, bytes]]]] = [
            ("search", SEARCHES / 2, self._search),
            ("search", SEARCHES / 2, self._search),
            ("click", CLICKS, self._click),
            ("document", DOCUMENTS, self._document),
        ]
        self._threads = [threading.Thread(target=self._send, args=one, daemon=True) for one in work]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def take(self) -> Timings:
        with self._guard:
            timings, self._timings = self._timings, Timings()
        return timings

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, kind: str, pace: float, make: Callable[[], tuple[str, str, bytes]]) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        due = time.perf_counter()
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            method, path, body = make()
            problem = ""
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read()
                if response.status >= 300:
                    problem = f"{method} {path}: {response.status} {answer[:200].decode(errors='replace')}"
            except (OSError, http.client.HTTPException) as error:
                problem = f"{method} {path}: {type(error).__name__} {error}"
                connection.close()
            with self._guard:
                self._timings.milliseconds[kind].append(1000 * (time.perf_counter() - due))
                if problem:
                    self._timings.errors.append(problem)
            # What was late is not made up for by a burst.
            due = max(due + 1 / pace, time.perf_counter())

    def _search(self) -> tuple[str, str, bytes]:
        with self._guard:
            question = next(self._questions)
        return "POST", "/api/chat/general_rag", json.dumps({"query": question}).encode()

    def _click(self) -> tuple[str, str, bytes]:
        return "POST", "/feedback", json.dumps({"query": "问", "doc_id": "0", "clicked": True}).encode()

    def _document(self) -> tuple[str, str, bytes]:
        number = next(self._numbers)
        path = f"/api/tenants/{TENANT}/knowledge_bases/default/documents/{quote(f'说明{number % 20}.txt')}"
        return "PUT", path, f"第{number}版说明：每日两粒。".encode()
