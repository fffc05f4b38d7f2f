"""A judge and a retrieval service on loopback, each in a process of its own: real sockets, seeded latencies.

Both serve at most their limit of requests at a time and let the others wait in line, first come, first served: a system
that sends too many is slowed down, never refused. A rewrite without a code word is a text of its own. aiohttp, for the
two cores are shared with those who are measured."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Literal

from aiohttp import web

from benchmarks.reward_runs.traffic import JUDGE_LIMIT, RAG_LIMIT, codes_in, judge_seconds, rag_seconds

_REASON = (
    "改写把口语问题整理成了清楚的检索词，保留了顾客关心的产品和时间安排，"
    "没有添加新的信息，用词符合领域习惯，便于在知识库里找到对应的说明。"
)
_PASSAGE = (
    "本品建议随餐服用，每日按说明书推荐量食用，不宜与浓茶同服；如正在使用其他营养补充剂，"
    "请间隔一段时间，并留意身体反应，有疑问可咨询客服或营养师。"
)


@dataclass(frozen=True)
class Counts:
    """`requests` received, and the most `offered` at one time, those waiting included."""

    requests: int = 0
    offered: int = 0


class _Service:
    def __init__(self, seed: int, scale: float, limit: int):
        self._seed, self._scale = seed, scale
        self._slots = asyncio.Semaphore(limit)
        self._present = 0
        self._counts = Counts()

    async def judge(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body["messages"][-1]["content"]
        codes = codes_in(text) or [text]
        await self._serve(max(judge_seconds(self._seed, code) for code in codes))
        if '"候选"' in text:
            verdict: Any = {"评分": {str(number): _verdict(code) for number, code in enumerate(codes, start=1)}}
        else:
            verdict = _verdict(codes[0])
        usage = {
            "prompt_tokens": sum(len(message["content"]) for message in body["messages"]),
            "completion_tokens": 90 * len(codes),
            "prompt_tokens_details": {"cached_tokens": 600},
        }
        message = {"role": "assistant", "content": json.dumps(verdict, ensure_ascii=False)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "bench", "object": "chat.completion", "created": 0, "model": body["model"]}
        return web.json_response({**answer, "choices": [choice], "usage": usage})

    async def retrieve(self, request: web.Request) -> web.Response:
        body = await request.json()
        rewrite = body.get("rewritten_query") or body["query"]  # the preflight asks with the question alone
        code = (codes_in(rewrite) or [rewrite])[0]
        await self._serve(rag_seconds(self._seed, code))
        return web.Response(body=_hits(code, int(body["top_k"])), content_type="application/json")

    async def _serve(self, seconds: float) -> None:
        self._present += 1
        offered = max(self._counts.offered, self._present)
        self._counts = Counts(self._counts.requests + 1, offered)
        async with self._slots:
            await asyncio.sleep(self._scale * seconds)
        self._present -= 1

    async def counts(self, _: web.Request) -> web.Response:
        """Read them and begin anew."""
        counts, self._counts = self._counts, Counts()
        return web.json_response(asdict(counts))


def _verdict(code: str) -> dict[str, Any]:
    chance = random.Random(code)
    grades = {name: chance.randint(3, 5) for name in ("改写质量", "领域适配", "意图保持", "可检索性")}
    return {"评分理由": _REASON, **grades}


@lru_cache(maxsize=1024)
def _hits(code: str, top_k: int) -> bytes:
    chance = random.Random(code)
    scores = sorted((round(chance.uniform(0.2, 0.98), 4) for _ in range(top_k)), reverse=True)
    hits = [
        {"content": _PASSAGE, "score": score, "reranker_score": score, "doc_id": f"doc_{chance.randrange(10**4)}"}
        for score in scores
    ]
    data = {"tenant_id": "fivedoctors", "rewritten_query": code, "recall": hits}
    return json.dumps({"data": data}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class LoopbackService:
    """A running service: where it is, and what it was asked since the last look."""

    url: str

    def take_counts(self) -> Counts:
        with urllib.request.urlopen(f"{self.url}/counts") as answer:
            return Counts(**json.load(answer))


@dataclass(frozen=True)
class Services:
    judge: LoopbackService
    rag: LoopbackService

    def take_counts(self) -> tuple[Counts, Counts]:
        """Return the judge's and the retrieval service's."""
        return self.judge.take_counts(), self.rag.take_counts()


@contextmanager
def loopback_services(seed: int, scale: float) -> Iterator[Services]:
    """Run both services on free ports for the length of the block, at the limits of `benchmarks.reward_runs.traffic`.

    Args:
        scale: factor on the latencies.
    """
    with _service("judge", seed, scale, JUDGE_LIMIT) as judge, _service("rag", seed, scale, RAG_LIMIT) as rag:
        yield Services(judge, rag)


@contextmanager
def _service(kind: Literal["judge", "rag"], seed: int, scale: float, limit: int) -> Iterator[LoopbackService]:
    spawning = get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_run, args=(kind, seed, scale, limit, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield LoopbackService(f"http://127.0.0.1:{ours.recv()}")
    finally:
        ours.close()  # the process ends when its end of the pipe reads no more, however ours was closed
        process.join()


def _run(kind: str, seed: int, scale: float, limit: int, pipe: Connection) -> None:
    asyncio.run(_listen(kind, seed, scale, limit, pipe))


async def _listen(kind: str, seed: int, scale: float, limit: int, pipe: Connection) -> None:
    service = _Service(seed, scale, limit)
    app = web.Application()
    app.router.add_get("/counts", service.counts)
    if kind == "judge":
        app.router.add_post("/v1/chat/completions", service.judge)
    else:
        app.router.add_post("/api/chat/general_rag", service.retrieve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), closed.set)
    pipe.send(runner.addresses[0][1])
    await closed.wait()
    await runner.cleanup()
