"""Qdrant Edge: every space is a shard of its own below `versions/`, opened by this process.

A shard is written without a log: the catalogue is the truth, and what was not flushed is written again from it. So
nothing but `serving.lock` keeps two processes from opening the same shard; the process that opens one holds the lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.index.engine import (
    DENSE,
    EXACT_UP_TO,
    KIND,
    PASSAGE,
    QUESTION,
    SPARSE,
    Point,
    ScoredRow,
    Space,
    SpaceLost,
    pages_of,
    point_id,
    row_of,
)

EDGE = "qdrant-edge"
LOCK = "serving.lock"
# A build command that drops what is retired holds the lock for less.
LOCK_SECONDS = 10.0
_PAGE = 512


@dataclass(slots=True)
class _Shard:
    shard: edge.EdgeShard
    points: int
    questions: bool


class EdgeEngine:
    """Searches run where they are called: the library keeps the interpreter's lock, so that a thread gains nothing."""

    id = f"{EDGE}-{version('qdrant-edge-py')}-v3"
    kind = EDGE
    shared = False

    def __init__(self, folder: Path):
        """Remember `folder`, the data folder. Nothing is opened or locked before it is needed."""
        self._folder = folder
        self._shards: dict[int, _Shard] = {}
        self._guard = threading.RLock()
        self._lock: int | None = None

    def write(self, space: Space, points: Iterable[Point]) -> Iterator[int]:
        path = self._path(space)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        shard = edge.EdgeShard.create(str(path), _config(space.dimension))
        shard.update(edge.UpdateOperation.create_field_index(KIND, edge.KeywordIndexParams()))
        written = 0
        for page in pages_of(points, _PAGE):
            shard.update(edge.UpdateOperation.upsert_points([_edge_point(space, point) for point in page]))
            written += len(page)
            yield written
        shard.optimize()
        shard.flush()
        shard.close()

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        opened = self._open(space)
        opened.shard.update(edge.UpdateOperation.upsert_points([_edge_point(space, point) for point in points]))
        opened.points = opened.shard.info().points_count
        opened.questions = opened.questions or any(point.is_question for point in points)

    def delete(self, space: Space, rows: Sequence[tuple[int, bool]]) -> None:
        opened = self._open(space)
        ids: list[edge.PointId] = [point_id(space.version_id, *row) for row in rows]
        opened.shard.update(edge.UpdateOperation.delete_points(ids))
        opened.points = opened.shard.info().points_count

    def flush(self, space: Space) -> None:
        self._open(space).shard.flush()

    async def search(
        self,
        space: Space,
        dense: NDArray[np.float32] | None,
        keywords: tuple[Sequence[int], Sequence[float]] | None,
        limit: int,
        with_questions: bool,
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        opened = self._open(space)
        # Scoping the IDF costs milliseconds when the space is large: only where there is something to leave out.
        scope = None if with_questions or not opened.questions else _of_kind(PASSAGE)
        exact = opened.points <= EXACT_UP_TO
        requests = []
        if dense is not None:
            query = edge.Query.Nearest(dense.tolist(), using=DENSE)
            requests.append(_request(query, limit, scope, edge.SearchParams(exact=exact)))
        if keywords is not None and keywords[0]:
            query = edge.Query.Nearest(edge.SparseVector(list(keywords[0]), list(keywords[1])), using=SPARSE)
            idf = None if scope is None else edge.IdfParams(corpus=scope)
            requests.append(_request(query, limit, scope, edge.SearchParams(exact=exact, idf=idf)))
        found = opened.shard.query_batch(edge.QueryBatchRequest(requests)) if requests else []
        results = [_scored_rows(points) for points in found]
        return (results.pop(0) if dense is not None else [], results.pop(0) if results else [])

    def count(self, space: Space) -> int:
        return self._open(space).points

    def exists(self, space: Space) -> bool:
        return self._path(space).is_dir()

    def drop(self, space: Space) -> bool:
        with self._guard:
            if not self._take_lock(0.0):
                return False
            opened = self._shards.pop(space.version_id, None)
            if opened is not None:
                opened.shard.close()
            shutil.rmtree(self._path(space), ignore_errors=True)
            return True

    def close(self) -> None:
        with self._guard:
            for opened in self._shards.values():
                opened.shard.close()
            self._shards.clear()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _path(self, space: Space) -> Path:
        return self._folder / "versions" / str(space.version_id)

    def _open(self, space: Space) -> _Shard:
        opened = self._shards.get(space.version_id)
        return opened or self._load(space)

    def _load(self, space: Space) -> _Shard:
        with self._guard:
            opened = self._shards.get(space.version_id)
            if opened is not None:
                return opened
            path = self._path(space)
            if not path.is_dir():
                raise SpaceLost(f"{path}: missing")
            if not self._take_lock(LOCK_SECONDS):
                raise IngestError(f"{self._folder}: another process is serving it (one at a time, without QDRANT_URL)")
            try:
                shard = edge.EdgeShard.load(str(path))
                questions = shard.count(edge.CountRequest(filter=_of_kind(QUESTION))) > 0
                opened = _Shard(shard, shard.info().points_count, questions)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # plain Exception, or a panic of the library, which is no Exception
                raise SpaceLost(f"{path}: cannot be opened ({str(error).splitlines()[0]})") from None
            self._shards[space.version_id] = opened
            return opened

    def _take_lock(self, seconds: float) -> bool:
        """Take the folder's lock, waiting a while for another process to let go of it; return whether it is held
        now."""
        if self._lock is not None:
            return True
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.05)
            else:
                self._lock = descriptor
                return True


def _config(dimension: int) -> edge.EdgeConfig:
    # A graph is built only where it will be used; the threshold is in KB of vectors.
    threshold = EXACT_UP_TO * dimension * 4 // 1024
    return edge.EdgeConfig(
        # Half the memory to read through: an exact search of 5 000 vectors takes 0.8 ms instead of 1.7.
        vectors={
            DENSE: edge.EdgeVectorParams(
                size=dimension, distance=edge.Distance.Dot, datatype=edge.VectorStorageDatatype.Float16
            )
        }
        if dimension
        else {},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=threshold),
        max_search_threads=1,
        wal_enabled=False,
    )


def _edge_point(space: Space, point: Point) -> edge.Point:
    dense = {DENSE: point.dense.tolist()} if space.dimension else {}
    return edge.Point(
        point_id(space.version_id, point.row_id, point.is_question),
        {SPARSE: edge.SparseVector(list(point.token_ids), list(point.weights)), **dense},
        {KIND: QUESTION if point.is_question else PASSAGE},
    )


def _of_kind(kind: str) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(KIND, match=edge.MatchValue(kind))])


def _request(query: edge.Query, limit: int, scope: edge.Filter | None, params: edge.SearchParams) -> edge.QueryRequest:
    return edge.QueryRequest(
        limit=limit, query=query, filter=scope, params=params, with_payload=False, with_vector=False
    )


def _scored_rows(points: list[edge.ScoredPoint]) -> list[ScoredRow]:
    # The engine leaves equal scores in an arbitrary order.
    ordered = sorted((-point.score, cast(int, point.id)) for point in points)
    return [ScoredRow(*row_of(identifier), -negative) for negative, identifier in ordered]
