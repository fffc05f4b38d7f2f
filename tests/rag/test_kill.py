"""kill -9 at random moments of storing, indexing and rebuilding: what was acknowledged is there, and is found."""

from __future__ import annotations

import asyncio
import os
import queue
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.catalogue.catalogue import Catalogue
from rag.documents.tokenizer import query_token_ids
from rag.index.engine import Engine, Space
from tests.support import killed_writer
from tests.support.commands import start_module

SEED = 5


class Writers:
    """The process that forks writers, and what those say."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 1}
        self._process = start_module("tests.support.killed_writer", **pipes)
        self._lines: queue.Queue[str] = queue.Queue()
        self._said: list[str] = []
        self._alive: set[int] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def start(self, task: str, folder: Path, seed: int) -> int:
        """Process id of a writer that is at work."""
        self.send(f"{task} {folder} {seed}")
        while not (line := self._lines.get(timeout=60)).endswith("started"):
            self._said.append(line)  # by one that was started before
        pid = int(line.split()[0])
        self._alive.add(pid)
        return pid

    def wait(self, times: int) -> None:
        """Until writers have finished something so many times."""
        while times:
            line = self._lines.get(timeout=60)
            self._said.append(line)
            times -= line.endswith(("done", "built"))

    def kill(self, pids: list[int]) -> list[str]:
        """Kills, and returns what was said since the start, up to the last word."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            while _is_alive(pid):
                time.sleep(0.001)
            self._alive.discard(pid)
        self.send("echo")
        said, self._said = self._said, []
        while (line := self._lines.get(timeout=60)) != "echo":
            said.append(line)
        return said

    def close(self) -> None:
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def writers() -> Iterator[Writers]:
    opened = Writers()
    yield opened
    opened.close()


def stored(catalogue: Catalogue, kb_id: int) -> dict[str, str]:
    """Text of the first passage by document."""
    return {passage.document: passage.content for passage in catalogue.passages(kb_id) if passage.key.endswith("#1")}


def account(expected: dict[str, str], said: list[str], found: dict[str, str]) -> None:
    """Updates `expected` by what was acknowledged; what was begun last may have happened or not."""
    begun: tuple[str, str] | None = None
    for line in said:
        _, what, *rest = line.split()
        if what == "try":
            begun = (rest[0], rest[1])
        elif what == "done":
            assert begun is not None
            apply(expected, *begun)
            begun = None
    if begun is not None and found != expected:
        apply(expected, *begun)
    assert found == expected


def apply(expected: dict[str, str], name: str, text: str) -> None:
    if text == "-":
        expected.pop(name, None)
    else:
        expected[name] = text


def assert_searchable(folder: Path, expected: dict[str, str]) -> None:
    """A service starts at once, without building anything, and finds each document by its word, and no other."""
    catalogue, indexer, _ = killed_writer.open_indexer(folder)
    kb = catalogue.find_knowledge_base(killed_writer.TENANT, killed_writer.KB)
    assert kb is not None and (kb.documents, kb.passages) == (len(expected), 2 * len(expected))
    opened = indexer.open(kb)
    assert opened is not None and not indexer.needs_rebuild(kb)
    assert opened.version.applied_revision == kb.revision
    assert indexer.engine.count(opened.space) >= kb.passages + kb.questions
    found = asyncio.run(find_all(indexer.engine, opened.space, catalogue, kb.id, expected))
    indexer.drop_retired()
    indexer.close()
    catalogue.close()
    assert found == {name: {name} for name in expected}


async def find_all(
    engine: Engine, space: Space, catalogue: Catalogue, kb_id: int, expected: dict[str, str]
) -> dict[str, set[str]]:
    found = {}
    for name, text in expected.items():
        tokens = query_token_ids(text)
        _, rows = await engine.search(space, None, (tokens, [1.0] * len(tokens)), 30, True)
        passages = catalogue.resolve(kb_id, [(row.row_id, row.is_question) for row in rows])
        found[name] = {passage.document for passage in passages.values()}
    return found


def test_kills_lose_nothing_that_was_acknowledged(writers: Writers, tmp_path: Path, full: bool) -> None:
    generator, expected = random.Random(SEED), {f"name{i}": "first" + "x" * (i + 1) for i in range(killed_writer.NAMES)}
    catalogue = Catalogue(tmp_path)
    kb = catalogue.create_knowledge_base(killed_writer.TENANT, killed_writer.KB)
    catalogue.put_documents(kb.id, [killed_writer.document(name, text) for name, text in expected.items()])
    catalogue.close()
    _, indexer, kb = killed_writer.open_indexer(tmp_path)
    indexer.rebuild(kb, lambda share: None)
    indexer.close()

    most = 50 if full else 20
    acknowledged = published = kills = 0
    while kills < most:
        tasks = generator.choice([["ingest"], ["rebuild"], ["ingest", "rebuild"]])
        pids = [writers.start(task, tmp_path, generator.randrange(10**6)) for task in tasks]
        writers.wait(generator.randrange(3))
        time.sleep(generator.uniform(0, 0.1))
        said = writers.kill(pids)
        kills += len(pids)
        catalogue = Catalogue(tmp_path)
        account(expected, said, stored(catalogue, kb.id))
        published += sum(line.endswith("built") for line in said)
        acknowledged += sum(line.endswith("done") for line in said)
        catalogue.close()
        assert_searchable(tmp_path, expected)
    # The kills came in the midst of real work.
    assert acknowledged > most / 5 and published > most / 10
