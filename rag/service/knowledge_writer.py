"""Writes to knowledge bases: read a file, store it, bring the index up to date, build it anew when it has aged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from starlette.requests import ClientDisconnect

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.holdings import LimitReached, count_characters, count_points
from rag.catalogue.records import Change, KnowledgeBase
from rag.documents.read_documents import read_documents
from rag.documents.records import Document, IngestError
from rag.fair_shares import REST, FairShares
from rag.index.indexer import Indexer
from rag.service.metrics import Metrics
from rag.settings import ServiceSettings

# Statistics and the engine's segments are as good as new up to so many changed points, or this share of them.
AGED_POINTS, AGED_SHARE = 200, 0.2
# The first build of a small knowledge base takes less time here than a process takes to start.
SMALL_PASSAGES = 1000
SMALL_CHARACTERS = 100_000
# A PDF's or a workbook's reader may take a gigabyte.
READERS = 2
NICE = 10
# Others' writes and clicks wait no longer than one transaction takes: half a second for the largest document.
MOST_PASSAGES = 5000  # of a document
LONGEST_PASSAGE = 20_000  # characters; the index takes a passage in at one go
TRANSACTION_PASSAGES = 200  # of several documents, but for the last

_P = ParamSpec("_P")
_T = TypeVar("_T")


class RebuildFailed(Exception):
    """One line: what the build command said."""


class KnowledgeWriter:
    """One file of a tenant is read at a time, one write of it is made, and one rebuild; tenants take turns. Searching
    goes on meanwhile."""

    def __init__(self, catalogue: Catalogue, indexer: Indexer, settings: ServiceSettings, metrics: Metrics):
        self._catalogue = catalogue
        self._indexer = indexer
        self._settings = settings
        self._metrics = metrics
        self._tenant_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._readers = FairShares(READERS)
        self._transactions = FairShares(1, REST)
        self._one_rebuild = FairShares(1)
        self._rebuilds: dict[int, asyncio.Task[None]] = {}
        self._failures: dict[int, str] = {}

    async def put(self, kb: KnowledgeBase, file: Path, name: str, is_gone: Callable[[], Awaitable[bool]]) -> Change:
        """Store the documents of a file and make them searchable. `is_gone`: nobody waits for it any more.

        Raises:
            IngestError: the file cannot be read as what `name` says, or a passage's key is another document's.
            LimitReached: nothing was stored, unless the tenant wrote by another service meanwhile.
            RebuildFailed: stored, but not searchable.
            ClientDisconnect: nothing was stored.
        """
        started = time.perf_counter()
        await is_gone()  # from now on the connection is watched
        async with self._readers.place(kb.tenant_id):
            if await is_gone():  # while it waited behind others of its tenant
                raise ClientDisconnect
            documents = await asyncio.to_thread(lambda: list(read_documents(file, name, apart=True)))
        for document in documents:
            if len(document.passages) > MOST_PASSAGES:
                raise IngestError(f"{document.name}: holds more than {MOST_PASSAGES} passages: split it")
            if any(len(passage.content) > LONGEST_PASSAGE for passage in document.passages):
                raise IngestError(f"{document.name}: a passage of more than {LONGEST_PASSAGE} characters: split it")
        self._metrics.observe_stage("read", time.perf_counter() - started)
        async with self._tenant_locks[kb.tenant_id]:
            await asyncio.to_thread(self._check_limit, kb, documents)
            most = self._settings.tenant(kb.tenant_id).max_passages
            total = Change(0, 0, 0, 0, kb.revision)
            for part in _parts(documents):
                change = await self.write(kb.tenant_id, self._catalogue.put_documents, kb.id, part, most_points=most)
                total = _sum(total, change)
            await self._make_searchable(kb)
        return total

    async def write(self, tenant_id: str, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call what writes to the catalogue in a thread, in the tenant's turn: SQLite knows no turns, and a writer that
        it keeps waiting holds a thread."""
        async with self._transactions.place(tenant_id):
            return await asyncio.to_thread(work, *args, **kwargs)

    async def delete(self, kb: KnowledgeBase, name: str) -> Change:
        async with self._tenant_locks[kb.tenant_id]:
            change = await self.write(kb.tenant_id, self._catalogue.delete_document, kb.id, name)
            await self._make_searchable(kb)
        return change

    async def drop(self, kb: KnowledgeBase) -> None:
        async with self._tenant_locks[kb.tenant_id]:
            rebuild = self._rebuilds.get(kb.id)
            if rebuild is not None:
                rebuild.cancel()
                await asyncio.wait([rebuild])
            while await self.write(kb.tenant_id, self._catalogue.drop_passages, kb.id, TRANSACTION_PASSAGES):
                pass
            await self.write(kb.tenant_id, self._catalogue.drop_knowledge_base, kb.id)
            await asyncio.to_thread(self._indexer.drop_retired)

    def start_rebuild(self, kb: KnowledgeBase) -> bool:
        """Start a rebuild; return whether it was started: False, one is under way."""
        if kb.id in self._rebuilds:
            return False
        self._failures.pop(kb.id, None)
        rebuild = asyncio.get_running_loop().create_task(self._rebuild(kb))
        self._rebuilds[kb.id] = rebuild
        rebuild.add_done_callback(lambda done: self._end_rebuild(kb.id, done))
        return True

    def rebuild_lost(self) -> None:
        """Rebuild every knowledge base that has passages and no index: a service was killed, or a folder copied in
        part."""
        for kb in self._catalogue.knowledge_bases():
            if self._indexer.needs_rebuild(kb):
                self.start_rebuild(kb)

    def is_rebuilding(self, kb: KnowledgeBase) -> bool:
        return kb.id in self._rebuilds

    def rebuild_failure(self, kb: KnowledgeBase) -> str:
        """Return why the last rebuild failed, "" when it did not."""
        return self._failures.get(kb.id, "")

    async def close(self) -> None:
        """End running rebuilds; what they have not published yet is as if they had not begun."""
        for rebuild in list(self._rebuilds.values()):
            rebuild.cancel()
        if self._rebuilds:
            await asyncio.wait(list(self._rebuilds.values()))

    def _check_limit(self, kb: KnowledgeBase, documents: list[Document]) -> None:
        """Refuse before anything is stored; each transaction counts again.

        Raises:
            LimitReached: all of it together is too much.
        """
        most = self._settings.tenant(kb.tenant_id).max_passages
        if most is None:
            return
        held = sum(other.passages + other.questions for other in self._catalogue.knowledge_bases(kb.tenant_id))
        replaced = count_points(self._catalogue.database.connection, kb.id, [document.name for document in documents])
        given = sum(_points(document) for document in documents)
        if held - replaced + given > most:
            raise LimitReached(
                f"tenant {kb.tenant_id!r} may hold {most} passages and questions: {held} held, {given} more given"
            )

    async def _make_searchable(self, kb: KnowledgeBase) -> None:
        """Bring the index up to everything committed so far."""
        now = self._catalogue.find_knowledge_base(kb.tenant_id, kb.name)
        if now is None or now.id != kb.id:
            return
        started = time.perf_counter()
        await asyncio.to_thread(self._indexer.catch_up, now)
        if self._indexer.needs_rebuild(now):
            await self._build_first(now)
            await asyncio.to_thread(self._indexer.catch_up, now)
        elif await asyncio.to_thread(self._has_aged, now):
            self.start_rebuild(now)
        self._metrics.observe_stage("index", time.perf_counter() - started)

    async def _build_first(self, kb: KnowledgeBase) -> None:
        # Edge keeps the interpreter's lock while it creates a shard and writes it to the disk: a tenth of a second, or
        # as long as a busy disk takes.
        if (
            not self._indexer.holds_up_others(kb.tenant_id)
            and kb.passages <= SMALL_PASSAGES
            and count_characters(self._catalogue.database.connection, kb.id) <= SMALL_CHARACTERS
        ):
            await asyncio.to_thread(self._indexer.rebuild, kb, lambda share: None)
            return
        self.start_rebuild(kb)
        await asyncio.wait([self._rebuilds[kb.id]])
        if failure := self.rebuild_failure(kb):
            raise RebuildFailed(f"stored, but not searchable: {failure}")

    def _has_aged(self, kb: KnowledgeBase) -> bool:
        if kb.live_version is None or not kb.passages:
            return False
        version = self._catalogue.version(kb.live_version)
        changed = self._catalogue.count_changes(kb.id, version.built_revision)
        return changed > max(AGED_POINTS, AGED_SHARE * version.points)

    async def _rebuild(self, kb: KnowledgeBase) -> None:
        """Rebuild in a process of its own: optimising a version blocks every thread of the process that does it.

        Raises:
            RebuildFailed: the command did not succeed.
        """
        command = ["-m", "rag.build_index", "--out", str(self._catalogue.folder), "--tenant", kb.tenant_id]
        command += ["--kb-name", kb.name, "--retriever", self._settings.embedder]
        async with self._one_rebuild.place(kb.tenant_id):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                cwd=Path(__file__).resolve().parents[2],
            )
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE)  # it gives way to searches
            try:
                _, errors = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise RebuildFailed(lines[-1] if lines else f"rebuild ended with {process.returncode}")
        await asyncio.to_thread(self._indexer.catch_up, kb)

    def _end_rebuild(self, kb_id: int, done: asyncio.Task[None]) -> None:
        del self._rebuilds[kb_id]
        if not done.cancelled() and (error := done.exception()) is not None:
            self._failures[kb_id] = str(error)


def _points(document: Document) -> int:
    return sum(1 + len(passage.questions) for passage in document.passages)


def _parts(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """Yield the documents in parts of which each is one transaction; at least one part."""
    part: list[Document] = []
    size = 0
    for document in documents:
        part.append(document)
        size += _points(document)
        if size >= TRANSACTION_PASSAGES:
            yield part
            part, size = [], 0
    if part or not documents:
        yield part


def _sum(total: Change, change: Change) -> Change:
    return replace(
        change,
        added=total.added + change.added,
        replaced=total.replaced + change.replaced,
        unchanged=total.unchanged + change.unchanged,
        deleted=total.deleted + change.deleted,
    )
