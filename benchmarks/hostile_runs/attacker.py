"""The attacker's process: one hostile shape after the other, each for some seconds, against a service that answers.

    python -m benchmarks.hostile_runs.attacker URL KEY

In: a JSON line [shape, seconds] each. Out: a JSON line for each that has ended, how many requests it made. At the end
of its input it holds whatever connections the service has not closed, until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp

from benchmarks.hostile_runs.bodies import documents, searches

SEARCH, DOCUMENTS = "/api/chat/general_rag", "/api/tenants/attacker/knowledge_bases/default/documents/"
KBS = "/api/tenants/attacker/knowledge_bases"
CLIENTS = 48  # at a time
UPLOADS = 6
HELD = 300  # connections of a shape that holds them


class Attacker:
    def __init__(self, url: str, key: str):
        address = urlsplit(url)
        assert address.hostname and address.port
        self._host, self._port = address.hostname, address.port
        self._url, self._key = url, key
        self._random = random.Random(0)
        self._documents, self._searches = documents(self._random), searches(self._random)
        self._end = 0.0
        self._requests = 0
        self._held: list[asyncio.StreamWriter] = []

    @property
    def shapes(self) -> list[str]:
        return [*self._documents, *self._searches, *self._others()]

    async def run(self, shape: str, seconds: float) -> int:
        """Attack in this shape for some seconds; return how many requests were made."""
        self._end, self._requests = time.monotonic() + seconds, 0
        if shape in self._documents:
            name, content = self._documents[shape]
            await self._at_once(UPLOADS, lambda: self._send("PUT", DOCUMENTS + name, content))
        elif shape in self._searches:
            make = self._searches[shape]
            await self._at_once(CLIENTS, lambda: self._send("POST", SEARCH, json.dumps(make()).encode()))
        else:
            await self._others()[shape]()
        return self._requests

    def _others(self) -> dict[str, Callable[[], Awaitable[None]]]:
        length, chunked = b"Content-Length: 900000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
        return {
            "a flood of searches": lambda: self._at_once(CLIENTS, self._search),
            "a flood of clicks": lambda: self._at_once(CLIENTS, self._click),
            "a flood of wrong keys": lambda: self._at_once(CLIENTS, lambda: self._send("POST", SEARCH, b"{}", "wrong")),
            "a flood of small documents": lambda: self._at_once(UPLOADS, self._small_document),
            "knowledge bases without end": lambda: self._at_once(UPLOADS, self._knowledge_base),
            "rebuilds": lambda: self._at_once(UPLOADS, lambda: self._send("POST", f"{KBS}/default/rebuild", b"")),
            "Dify conditions": lambda: self._at_once(CLIENTS, self._conditions),
            "half-open connections": lambda: self._hold([b"", b"GET / HTTP/1.1\r\nX: "]),
            "slow writers": lambda: self._hold([self._head(self._key) + length, self._head("") + length]),
            "endless bodies": lambda: self._at_once(
                UPLOADS, lambda: self._pour(self._head(self._key, "PUT", f"{DOCUMENTS}a.txt") + chunked)
            ),
            "endless bodies without a key": lambda: self._at_once(
                UPLOADS, lambda: self._pour(self._head("") + chunked)
            ),
            "slow readers of answers": self._read_nothing,
        }

    async def _at_once(self, clients: int, work: Callable[[], Awaitable[object]]) -> None:
        async def go_on() -> None:
            while (left := self._end - time.monotonic()) > 0:
                self._requests += 1
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with asyncio.timeout(left):
                        await work()

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, connector=connector) as self._session:
            await asyncio.gather(*(go_on() for _ in range(clients)))

    async def _send(self, method: str, path: str, body: bytes, key: str | None = None) -> int:
        headers = {"Authorization": f"Bearer {key or self._key}", "Content-Type": "application/json"}
        async with self._session.request(method, path, data=body, headers=headers) as response:
            await response.read()
            return response.status

    async def _search(self) -> None:
        await self._send("POST", SEARCH, json.dumps({"query": f"鱼油{self._random.random()}"}).encode())

    async def _click(self) -> None:
        click = {"query": "鱼油", "doc_id": "0", "clicked": True}
        await self._send("POST", "/feedback", json.dumps(click).encode())

    async def _small_document(self) -> None:
        name = f"{self._random.randrange(1000)}.txt"
        await self._send("PUT", DOCUMENTS + name, f"鱼油{self._random.random()}".encode())

    async def _knowledge_base(self) -> None:
        name = f"kb{self._random.randrange(10**9)}"
        await self._send("POST", KBS, json.dumps({"name": name}).encode())
        await self._send("PUT", f"{KBS}/{name}/documents/a.txt", "鱼油".encode())
        await self._send("DELETE", f"{KBS}/{name}", b"")

    async def _conditions(self) -> None:
        condition = {"name": ["title"] * 20, "comparison_operator": "not contains", "value": ["x" * 1000] * 100}
        asked = {
            "knowledge_id": "default",
            "query": "鱼油",
            "retrieval_setting": {"top_k": 200, "score_threshold": 0},
            "metadata_condition": {"conditions": [condition] * 20},
        }
        await self._send("POST", "/retrieval", json.dumps(asked).encode())

    def _head(self, key: str, method: str = "POST", path: str = SEARCH) -> bytes:
        given = f"Authorization: Bearer {key}\r\n" if key else ""
        return f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n{given}".encode()

    async def _hold(self, heads: list[bytes]) -> None:
        """Open connections, and send a byte on each every four seconds."""
        for number in range(HELD):
            with suppress(OSError):
                _, writer = await asyncio.open_connection(self._host, self._port)
                writer.write(heads[number % len(heads)])
                self._held.append(writer)
                self._requests += 1
        while time.monotonic() < self._end:
            for writer in self._held:
                if not writer.is_closing():
                    writer.write(b"a")
            await asyncio.sleep(min(4.0, max(0.0, self._end - time.monotonic())))

    async def _pour(self, head: bytes) -> None:
        _, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(head)
            while True:
                writer.write(b"10000\r\n" + b"a" * 0x10000 + b"\r\n")
                await writer.drain()
        finally:
            writer.transport.abort()

    async def _read_nothing(self) -> None:
        body = json.dumps({"query": "鱼油", "top_k": 200, "score_threshold": 0, "debug": True}).encode()
        request = self._head(self._key) + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(HELD // 3):
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=1)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request * 30)
            self._held.append(writer)
            self._requests += 1
        await asyncio.sleep(max(0.0, self._end - time.monotonic()))


async def _main(url: str, key: str) -> None:
    attacker = Attacker(url, key)
    print(json.dumps(attacker.shapes), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await attacker.run(*json.loads(line)), flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    os.nice(10)
    asyncio.run(_main(*sys.argv[1:3]))
