"""Clients of the RAG service: closed loops over kept connections, in processes of their own.

    python -m benchmarks.rag_load_runs.traffic read URL CLIENTS
    python -m benchmarks.rag_load_runs.traffic mix URL CLIENTS SECONDS SEED TENANT...

`read` asks every question of stdin, which an empty line ends, once. `mix` asks for so many seconds, and one more client
adds, finds, replaces, misses and deletes documents of its own all the while. Both print `ready`, begin when
stdin is closed, and end with one JSON object (`Traffic`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count

import aiohttp

from benchmarks.rag_load_runs.texts import Question, SyntheticText

TOP_K = 10
_TIMEOUT = aiohttp.ClientTimeout(total=60)


@dataclass
class Traffic:
    """`milliseconds`: of each search, in order of their ends. `errors`: answers that were wrong, a line each."""

    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    writes: int = 0
    write_milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _Clients:
    def __init__(self, session: aiohttp.ClientSession):
        self._session = session
        self.traffic = Traffic()

    async def read(self, questions: Iterator[Question], until: float = float("inf")) -> None:
        for question in questions:
            if time.monotonic() >= until:
                return
            await self.search(question)

    async def search(self, question: Question) -> list[str]:
        """Return the contents found; record a failure."""
        started = time.perf_counter()
        body = {"query": question.text, "tenant_id": question.tenant, "top_k": TOP_K, "score_threshold": 0.0}
        try:
            async with self._session.post("/api/chat/general_rag", json=body) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.traffic.errors.append(f"search: {error!r}")
            return []
        self.traffic.milliseconds.append(_milliseconds(started))
        if response.status != 200:
            self.traffic.errors.append(f"search: {response.status} {answer[:200]!r}")
            return []
        hits = json.loads(answer)["data"]["recall"]
        if not hits:
            self.traffic.errors.append(f"search: nothing found for {question}")
        return [hit["content"] for hit in hits]

    async def write(self, tenants: Sequence[str], texts: SyntheticText, until: float) -> None:
        """Write one document after the other and search for it: once added it is found, once replaced only its new text
        is found, once deleted nothing is."""
        for n in count():
            if time.monotonic() >= until:
                return
            tenant = tenants[n % len(tenants)]
            document = f"/api/tenants/{tenant}/knowledge_bases/default/documents/load/{n}.txt"
            old, new = (texts.passage(f"written to {tenant}", 2 * n + place) for place in (0, 1))
            for method, body, there, gone in (("PUT", old, old, ""), ("PUT", new, new, old), ("DELETE", "", "", new)):
                await self._request(method, document, body)
                for text, expected in ((there, True), (gone, False)):
                    if text and (text in await self.search(Question(tenant, text[:60]))) is not expected:
                        self.traffic.errors.append(f"{method} {document}: {'not found' if expected else 'still found'}")

    async def _request(self, method: str, path: str, body: str) -> None:
        started = time.perf_counter()
        try:
            async with self._session.request(method, path, data=body.encode()) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self.traffic.errors.append(f"{method} {path}: {error!r}")
            return
        self.traffic.writes += 1
        self.traffic.write_milliseconds.append(_milliseconds(started))
        if response.status not in (200, 201, 204):
            self.traffic.errors.append(f"{method} {path}: {response.status} {answer[:200]!r}")


async def read_all(url: str, clients: int) -> Traffic:
    """Ask all questions of stdin with `clients` clients; each asks its next question when its last one is answered."""
    questions = [Question(*json.loads(line)) for line in iter(sys.stdin.readline, "\n")]
    async with _session(url, clients) as session:
        asking = _Clients(session)
        await asyncio.gather(*(asking.search(questions[0]) for _ in range(clients)))  # opens the connections
        asking.traffic = Traffic()
        _wait_for_go()
        started = time.perf_counter()
        shared = iter(questions)
        await asyncio.gather(*(asking.read(shared) for _ in range(clients)))
        asking.traffic.seconds = time.perf_counter() - started
    return asking.traffic


async def mix(url: str, clients: int, seconds: float, seed: int, tenants: Sequence[str], passages: int) -> Traffic:
    """Search with `clients` clients and write with one more, for `seconds`."""
    texts = SyntheticText(seed)
    questions = texts.questions(list(tenants), passages, 1 << 60, start=8)
    _wait_for_go()
    until = time.monotonic() + seconds
    async with _session(url, clients + 1) as session:
        asking = _Clients(session)
        readers = (asking.read(questions, until) for _ in range(clients))
        await asyncio.gather(*readers, asking.write(tenants, texts, until))
        asking.traffic.seconds = seconds
    return asking.traffic


def _wait_for_go() -> None:
    """Say that this process is ready and wait for the end of stdin. It may block: there is nothing else to do yet."""
    print("ready", flush=True)
    sys.stdin.read()


def _milliseconds(since: float) -> float:
    return round(1000 * (time.perf_counter() - since), 3)


def _session(url: str, connections: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(url, timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=connections))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rag_load_runs.traffic")
    parser.add_argument("what", choices=("read", "mix"))
    parser.add_argument("url")
    parser.add_argument("clients", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tenants", nargs="*", default=[])
    parser.add_argument("--passages", type=int, default=1, help="of each tenant")
    args = parser.parse_args(argv)
    if args.what == "read":
        traffic = asyncio.run(read_all(args.url, args.clients))
    else:
        traffic = asyncio.run(mix(args.url, args.clients, args.seconds, args.seed, args.tenants, args.passages))
    print(json.dumps(asdict(traffic)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
