"""What both ways of retrieval take in a process of their own: by hand, and the engine."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.rag_load_runs.peer import ByHand
from benchmarks.rag_load_runs.texts import Question, SyntheticText
from benchmarks.rag_load_runs.traffic import TOP_K
from rag import build_index
from rag.catalogue.catalogue import Catalogue
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import SearchRequest

CLIENTS = (1, 10, 50)
COMPARED = 200


@dataclass(frozen=True)
class Load:
    """`milliseconds`: of each answer; `seconds`: from the first question to the last answer."""

    milliseconds: list[float]
    seconds: float
    errors: int = 0

    @property
    def qps(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


@dataclass(frozen=True)
class Run:
    """`loads`: by `CLIENTS`. `found`: contents of the hits for each of the first `COMPARED` questions."""

    build_seconds: float
    loads: list[Load]
    found: list[list[str]]


def run_by_hand(
    seed: int, tenants: Sequence[str], passages: int, asked: Sequence[Sequence[Question]], retriever: str
) -> Run:
    """Measure the search put together by hand, with a thread for each client."""
    texts = SyntheticText(seed)
    by_tenant = {tenant: [texts.passage(tenant, n) for n in range(passages)] for tenant in tenants}
    started = perf_counter()
    by_hand = ByHand(by_tenant, retriever)
    build_seconds = perf_counter() - started
    found = [by_hand.search(question.tenant, question.text, TOP_K) for question in asked[0][:COMPARED]]
    loads = [_load_by_hand(by_hand, questions, clients) for questions, clients in zip(asked, CLIENTS, strict=True)]
    return Run(build_seconds, loads, found)


def _load_by_hand(by_hand: ByHand, questions: Sequence[Question], clients: int) -> Load:
    milliseconds: list[float] = []
    shared = iter(questions)
    guard = threading.Lock()

    def ask() -> None:
        while True:
            with guard:
                question = next(shared, None)
            if question is None:
                return
            started = perf_counter()
            by_hand.search(question.tenant, question.text, TOP_K)
            milliseconds.append(1000 * (perf_counter() - started))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(milliseconds, perf_counter() - started)


def run_engine(
    sources: Path, data: Path, tenants: Sequence[str], asked: Sequence[Sequence[Question]], retriever: str
) -> Run:
    """Measure the engine on one event loop, as the service runs it, with a task for each client. Build seconds are
    those of the build command for all tenants, one after the other, without its imports.

    Raises:
        RuntimeError: the build failed.
    """
    started = perf_counter()
    for tenant in tenants:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            places = ["--kb-dir", str(sources / tenant), "--out", str(data)]
            status = build_index.main([*places, "--tenant", tenant, "--retriever", retriever])
        if status:
            raise RuntimeError(f"build of {tenant} exited with {status}: {said.getvalue()}")
    # Put together as the service does, but without HTTP.
    build_seconds = perf_counter() - started
    catalogue = Catalogue(data)
    indexer = Indexer(catalogue, open_engine(data), embedder_maker(retriever))
    engine = Retriever(catalogue, indexer)

    async def search(question: Question) -> list[str]:
        kb = catalogue.find_knowledge_base(question.tenant, "default")
        assert kb is not None
        found = await engine.retrieve(kb, SearchRequest(question.text, question.tenant, top_k=TOP_K))
        return [hit.content for hit in found.hits]

    async def load(questions: Sequence[Question], clients: int) -> Load:
        milliseconds: list[float] = []
        shared = iter(questions)

        async def ask() -> None:
            for question in shared:
                started = perf_counter()
                await asyncio.sleep(0)  # the others' turn: the engine itself lets nobody in
                await search(question)
                milliseconds.append(1000 * (perf_counter() - started))

        started = perf_counter()
        await asyncio.gather(*(ask() for _ in range(clients)))
        return Load(milliseconds, perf_counter() - started)

    async def run() -> Run:
        for tenant in tenants:
            await search(Question(tenant, "预热"))  # opens its index
        found = [await search(question) for question in asked[0][:COMPARED]]
        return Run(build_seconds, [await load(*one) for one in zip(asked, CLIENTS, strict=True)], found)

    try:
        return asyncio.run(run())
    finally:
        indexer.close()
        catalogue.close()
