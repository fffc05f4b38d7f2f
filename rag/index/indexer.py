"""Keep the index of every knowledge base in step with the catalogue: open versions, catch up, build new ones."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase, Version
from rag.documents.records import IngestError
from rag.documents.tokenizer import TOKENIZER_ID
from rag.fair_shares import FairShares
from rag.index.edge_engine import EdgeEngine
from rag.index.engine import Engine, Space, SpaceLost, pages_of, pages_of_tokens
from rag.index.keyword_vectors import points_of
from rag.index.version_writer import only_build, prepare, write_version
from rag.models.embedder import Embedder, EmbedderMaker

logger = logging.getLogger(__name__)

# Edge keeps the interpreter's lock while it takes points in: 64 of them hold up a search by 2 ms.
CATCH_UP_PAGE, CATCH_UP_TOKENS = 64, 20_000
# Searches under way on a version that was superseded end well within it.
GRACE_SECONDS = 60.0
# After a catch-up that failed, a search does not start another one before.
RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class OpenVersion:
    """`version.applied_revision` says up to where it holds the knowledge base. `has_questions`: some are indexed.
    `mean_vector`: (dimension,) of its passages; zeros where the version keeps none."""

    version: Version
    space: Space
    embedder: Embedder
    statistics: bytes
    has_questions: bool
    mean_vector: NDArray[np.float32]


def engine_of(folder: Path, qdrant_url: str | None) -> Engine:
    """Open Edge in this process, or the Qdrant server at the URL (key: QDRANT_API_KEY).

    Raises:
        IngestError: the server does not answer, or cannot be used.
    """
    if not qdrant_url:
        return EdgeEngine(folder)
    from rag.index.server_engine import ServerEngine  # its client takes half a second to import

    return ServerEngine(qdrant_url, os.environ.get("QDRANT_API_KEY"))


def open_engine(folder: Path) -> Engine:
    """Open the engine of the server that QDRANT_URL names, else Edge."""
    return engine_of(folder, os.environ.get("QDRANT_URL"))


class Indexer:
    """Thread-safe. What is open stays open, and is searched, until what supersedes it is ready.

    `searches`: the turns of those who search beside it. Catching up rests for them.
    """

    def __init__(self, catalogue: Catalogue, engine: Engine, models: EmbedderMaker, searches: FairShares | None = None):
        self.engine = engine
        self._catalogue = catalogue
        self._models = models
        self._searches = searches or FairShares(1)
        self._opened: dict[int, OpenVersion] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._lost: set[int] = set()
        self._loaded: set[int] = set()
        self._behind: dict[int, float] = {}  # knowledge base → when its next catch-up in the background may begin
        self._noticed: dict[int, float] = {}  # retired version → when this process first saw that
        self._drop_at = float("inf")
        self._background = ThreadPoolExecutor(1, "catch-up")
        self._closing = threading.Event()

    def open(self, kb: KnowledgeBase) -> OpenVersion | None:
        """Return what to search; None when nothing was built yet, or what was built is lost and has to be built again.

        Takes microseconds once something is open: it is brought up to date, or superseded, in the background (call
        `catch_up` to wait for that). The first time it is loaded and brought up to date here.

        Raises:
            IngestError: made with another embedder, tokenizer or engine; or another process has the folder open.
        """
        opened = self._opened.get(kb.id)
        if opened is None:
            if kb.live_version is None or kb.live_version in self._lost:
                return None
            self.catch_up(kb)
            return self._opened.get(kb.id)
        if opened.version.id != kb.live_version or opened.version.applied_revision < kb.revision:
            self._catch_up_later(kb)
        if time.monotonic() > self._drop_at:
            self._drop_at = float("inf")
            self._submit(self.drop_retired)
        return opened

    def holds_up_others(self, tenant_id: str) -> bool:
        """Return whether other tenants search, and would wait for what this process does to an embedded index."""
        return not self.engine.shared and self._searches.are_others_active(tenant_id)

    def needs_rebuild(self, kb: KnowledgeBase) -> bool:
        """Return whether `open` gives None although there is something to index."""
        return kb.passages > 0 and (kb.live_version is None or kb.live_version in self._lost)

    def catch_up(self, kb: KnowledgeBase) -> int:
        """Open the live version if it is not open, and bring it up to the catalogue; return how many points that wrote
        and removed. Nothing is undone by a failure: what is missing is written the next time.

        Raises:
            IngestError: as `open`.
            ModelFailure: an embedder behind an endpoint did not answer.
            EngineUnavailable: the Qdrant server did not.
        """
        with self._locks[kb.id]:
            found = self._catalogue.find_knowledge_base(kb.tenant_id, kb.name)
            if found is None or found.id != kb.id or found.live_version is None or found.live_version in self._lost:
                return 0
            opened = self._opened.get(kb.id)
            superseded = opened is not None and opened.version.id != found.live_version
            if opened is None or superseded:
                opened = self._load(found)
                if opened is None:
                    return 0
            # Write what changed since; then make sure that a freshly opened index is whole.
            version = self._catalogue.version(opened.version.id)  # another process may have brought it further
            if kb.id not in self._opened or superseded:
                version = self._on_disk(version)
            changed = 0
            if version.applied_revision < found.revision:
                changed = self._apply(found, version, opened)
            if version.cleaned_revision < found.revision:
                changed += self._clean(found, version, opened)
            if self._closing.is_set():
                return changed  # perhaps not all of it
            if kb.id not in self._opened or superseded:
                self._check_complete(found, opened.space)
                if found.live_version in self._lost:
                    return 0
            # Only now searches see it: until here they go on with what was open before.
            applied = max(version.applied_revision, found.revision)
            self._opened[kb.id] = replace(
                opened, version=replace(version, applied_revision=applied), has_questions=found.questions > 0
            )
            if superseded:
                self._drop_at = time.monotonic() + GRACE_SECONDS
            # Once for all of it: Edge keeps the interpreter's lock while it flushes.
            if changed:
                self.engine.flush(opened.space)
                self._catalogue.mark_flushed(version.id, applied)
        if superseded:
            self.drop_retired()
        return changed

    def rebuild(self, kb: KnowledgeBase, on_progress: Callable[[float], None]) -> Version:
        """Write a new version from what the catalogue holds now and make it the live one; until then the
        earlier one stays live, also when this fails. One at a time for a folder. `on_progress` gets the share done.

        Raises:
            IngestError: the knowledge base is gone or empty.
            ModelFailure, EngineUnavailable: as `catch_up`.
        """
        with only_build(self._catalogue.folder):
            found = self._catalogue.find_knowledge_base(kb.tenant_id, kb.name)
            if found is None or found.passages == 0:
                raise IngestError(f"{kb.tenant_id}/{kb.name}: holds no passages: there is nothing to index")
            recipe, embedder, statistics = prepare(self._catalogue, self.engine, self._models, found)
            built, points = write_version(
                self._catalogue, self.engine, found, recipe, embedder, statistics, on_progress
            )
            self._catalogue.publish_version(built.id, points)
        on_progress(1.0)
        return replace(built, state="live", points=points)

    def drop_retired(self) -> None:
        """Remove versions that no search uses any more; those of another kind of engine are left to it."""
        now = time.monotonic()
        for identifier in self._catalogue.retired_versions():
            retired = self._catalogue.version(identifier)
            if not retired.recipe.engine_id.startswith(self.engine.kind):
                continue
            noticed = self._noticed.setdefault(identifier, now)
            searched = retired.points > 0 and (self.engine.shared or identifier in self._loaded)
            if searched and now - noticed < GRACE_SECONDS:
                self._drop_at = min(self._drop_at, noticed + GRACE_SECONDS)
                continue
            for kb_id, opened in list(self._opened.items()):
                if opened.version.id == identifier:
                    del self._opened[kb_id]
            if self.engine.drop(Space(identifier, retired.recipe.dimension)):
                self._catalogue.forget_version(identifier)
                self._noticed.pop(identifier)

    def close(self) -> None:
        """End catching up after the page at hand, and close the engine."""
        self._closing.set()
        self._background.shutdown(cancel_futures=True)
        self.engine.close()

    def _load(self, kb: KnowledgeBase) -> OpenVersion | None:
        assert kb.live_version is not None
        version = self._catalogue.version(kb.live_version)
        made, here = version.recipe, (self._models.id, TOKENIZER_ID, self.engine.id)
        for built, mine in zip((made.embedder_id, made.tokenizer_id, made.engine_id), here, strict=True):
            if built != mine:
                mend = "take the same --retriever, or " if built == made.embedder_id else ""
                raise IngestError(
                    f"{self._catalogue.folder}: {kb.tenant_id}/{kb.name} was indexed with {built}, but this is {mine}: "
                    f"{mend}build the index again (python -m rag.build_index --out {self._catalogue.folder} "
                    f"--tenant {kb.tenant_id} --kb-name {kb.name})"
                )
        # Before the folder is taken: a service that refuses its embedder leaves it to others.
        embedder = self._models.load(version.embedder_state)
        if embedder.dimension != made.dimension:
            raise IngestError(f"{made.embedder_id}: gives {embedder.dimension} numbers a text, not {made.dimension}")
        space = Space(version.id, made.dimension)
        try:
            self.engine.count(space)
        except SpaceLost as error:
            self._lose(version.id, str(error))
            return None
        self._loaded.add(version.id)
        mean_vector = np.frombuffer(version.mean_vector or bytes(4 * made.dimension), np.float32)
        return OpenVersion(version, space, embedder, version.statistics, kb.questions > 0, mean_vector)

    def _check_complete(self, kb: KnowledgeBase, space: Space) -> None:
        """Check that all points are there: Edge opens a damaged shard as if fewer points had been written."""
        count, now = self.engine.count(space), self._catalogue.find_knowledge_base(kb.tenant_id, kb.name)
        if now is not None and now.revision == kb.revision and count < kb.passages + kb.questions:
            self._lose(space.version_id, f"version {space.version_id} holds {count} of {kb.passages + kb.questions}")

    def _lose(self, identifier: int, problem: str) -> None:
        self._lost.add(identifier)
        logger.error("index lost, to be built again: %s", problem)

    def _apply(self, kb: KnowledgeBase, version: Version, opened: OpenVersion) -> int:
        """Write what is new. Searches see all of it at once when it is marked, and until then what it replaces."""
        changed, worked = 0, 0.0
        changes = self._catalogue.changes(kb.id, version.applied_revision)
        for keys in pages_of_tokens(changes, CATCH_UP_PAGE, CATCH_UP_TOKENS):
            # Nobody waits for an index that is open: between its pages others come first.
            if self._closing.wait(self._searches.rest_after(kb.tenant_id, worked) if kb.id in self._opened else 0.0):
                return changed
            started = time.thread_time()
            self.engine.upsert(opened.space, points_of(keys, opened.embedder, version.recipe.mean_length))
            worked = time.thread_time() - started
            changed += len(keys)
        self._catalogue.mark_applied(version.id, kb.revision)
        return changed

    def _clean(self, kb: KnowledgeBase, version: Version, opened: OpenVersion) -> int:
        """Delete what no search sees any more. Searches under way notice that the revision has changed."""
        if self._closing.is_set():
            return 0
        removed = self._catalogue.removals(kb.id, version.cleaned_revision, kb.revision)
        for rows in pages_of(removed, CATCH_UP_PAGE):
            self.engine.delete(opened.space, rows)
        self._catalogue.mark_cleaned(version.id, kb.id, kb.revision)
        return len(removed)

    def _on_disk(self, version: Version) -> Version:
        """Return what a version opened just now holds for certain: what was not flushed, a crash has undone."""
        if self.engine.shared:
            return version
        flushed = version.flushed_revision
        return replace(
            version,
            applied_revision=min(version.applied_revision, flushed),
            cleaned_revision=min(version.cleaned_revision, flushed),
        )

    def _catch_up_later(self, kb: KnowledgeBase) -> None:
        now = time.monotonic()
        if self._behind.get(kb.id, 0.0) > now:
            return
        self._behind[kb.id] = float("inf")  # until this one is through

        def catch_up() -> None:
            again = 0.0
            try:
                self.catch_up(kb)
            except Exception as error:
                again = time.monotonic() + RETRY_SECONDS
                logger.error("%s/%s: the index is not up to date: %s", kb.tenant_id, kb.name, error)
            self._behind[kb.id] = again

        self._submit(catch_up)

    def _submit(self, task: Callable[[], None]) -> None:
        if not self._closing.is_set():
            self._background.submit(task)
