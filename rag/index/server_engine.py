"""A Qdrant server or cluster: one collection per dimension holds every tenant's spaces, separated by their payload.

The server shards and graphs by `space` (`is_tenant`, `payload_m`), and counts IDF within it: that takes Qdrant 1.19.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from guard.service_url import why_unfit
from rag.documents.records import IngestError
from rag.index.engine import (
    DENSE,
    EXACT_UP_TO,
    KIND,
    PASSAGE,
    QUESTION,
    SPACE,
    SPARSE,
    EngineUnavailable,
    Point,
    ScoredRow,
    Space,
    SpaceLost,
    pages_of,
    point_id,
    row_of,
)

SERVER = "qdrant-server"
OLDEST = (1, 19)
_PAGE = 256
_TIMEOUT = 60
T = TypeVar("T")


class ServerEngine:
    id = f"{SERVER}-v3"
    kind = SERVER
    shared = True

    def __init__(self, url: str, api_key: str | None = None, start_seconds: float = 15.0):
        """Wait up to `start_seconds` for the server to come up.

        Raises:
            IngestError: it does not, it refuses the key, it is too old, or `url` holds a secret.
        """
        if problem := why_unfit(url):
            raise IngestError(f"QDRANT_URL: {problem} (QDRANT_API_KEY)")
        self._url = url
        # The client's own default opens a connection a request when the server is on this machine.
        self._settings = {
            "url": url,
            "api_key": api_key,
            "timeout": _TIMEOUT,
            "check_compatibility": False,
            "limits": httpx.Limits(max_keepalive_connections=32),
            "trust_env": False,  # a proxy for the internet must not swallow calls inside the network
        }
        try:
            self._client = QdrantClient(**self._settings)  # type: ignore[arg-type]
        except ValueError as error:
            raise IngestError(f"{url}: no URL of a Qdrant server ({error})") from None
        self._searching: tuple[asyncio.AbstractEventLoop, AsyncQdrantClient] | None = None
        self._counts: dict[int, int] = {}
        self._check_version(start_seconds)

    def write(self, space: Space, points: Iterable[Point]) -> Iterator[int]:
        self._create_collection(space.dimension)
        written = 0
        for page in pages_of(points, _PAGE):
            self.upsert(space, page)
            written += len(page)
            yield written

    def upsert(self, space: Space, points: Sequence[Point]) -> None:
        structs = [_point_struct(space, point) for point in points]
        self._counts.pop(space.version_id, None)
        self._ask(space, lambda: self._client.upsert(_collection(space.dimension), structs, wait=True))

    def delete(self, space: Space, rows: Sequence[tuple[int, bool]]) -> None:
        ids: list[models.ExtendedPointId] = [point_id(space.version_id, *row) for row in rows]
        self._counts.pop(space.version_id, None)
        selector = models.PointIdsList(points=ids)
        self._ask(space, lambda: self._client.delete(_collection(space.dimension), selector, wait=True))

    def flush(self, space: Space) -> None:
        """Do nothing: the server acknowledges only what is in its log."""

    async def search(
        self,
        space: Space,
        dense: NDArray[np.float32] | None,
        keywords: tuple[Sequence[int], Sequence[float]] | None,
        limit: int,
        with_questions: bool,
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        if space.version_id not in self._counts:
            await asyncio.to_thread(self.count, space)
        exact = self._counts.get(space.version_id, 0) <= EXACT_UP_TO
        scope = _within(space, None if with_questions else PASSAGE)
        requests = []
        if dense is not None:
            params = models.SearchParams(exact=exact)
            requests.append(_request(dense.tolist(), DENSE, limit, scope, params))
        if keywords is not None and keywords[0]:
            sparse = models.SparseVector(indices=list(keywords[0]), values=list(keywords[1]))
            params = models.SearchParams(idf=models.IdfCorpusParams(corpus=scope))
            requests.append(_request(sparse, SPARSE, limit, scope, params))
        if not requests:
            return [], []
        try:
            answers = await self._search_client().query_batch_points(_collection(space.dimension), requests)
        except (ApiException, httpx.HTTPError) as error:
            raise self._failure(space, error) from None
        results = [_scored_rows(answer.points) for answer in answers]
        return (results.pop(0) if dense is not None else [], results.pop(0) if results else [])

    def count(self, space: Space) -> int:
        counted = self._ask(
            space, lambda: self._client.count(_collection(space.dimension), _within(space, None), exact=True)
        )
        self._counts[space.version_id] = counted.count
        return counted.count

    def exists(self, space: Space) -> bool:
        try:
            return self.count(space) > 0
        except SpaceLost:
            return False

    def drop(self, space: Space) -> bool:
        self._counts.pop(space.version_id, None)
        selector = models.FilterSelector(filter=_within(space, None))
        with suppress(SpaceLost):
            self._ask(space, lambda: self._client.delete(_collection(space.dimension), selector, wait=True))
        return True

    def close(self) -> None:
        self._client.close()
        self._searching = None

    def _check_version(self, seconds: float) -> None:
        deadline, pause = time.monotonic() + seconds, 0.1
        while True:
            try:
                found = self._client.info().version
                break
            except UnexpectedResponse as error:
                if error.status_code in (401, 403):
                    raise IngestError(f"{self._url}: refuses the key (QDRANT_API_KEY)") from None
                problem: Exception = error
            except (ApiException, httpx.HTTPError) as error:
                problem = error
            if time.monotonic() + pause > deadline:
                raise IngestError(f"{self._url}: no Qdrant server answers ({_line(problem)})") from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise IngestError(f"{self._url}: Qdrant {found}, but {wanted} or later is needed")

    def _create_collection(self, dimension: int) -> None:
        name = _collection(dimension)
        if self._ask(None, lambda: self._client.collection_exists(name)):
            return
        try:
            self._client.create_collection(
                name,
                vectors_config={
                    DENSE: models.VectorParams(
                        size=dimension, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16
                    )
                }
                if dimension
                else {},
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),  # a graph for each space, none across them
            )
        except (ApiException, httpx.HTTPError) as error:
            if not self._ask(None, lambda: self._client.collection_exists(name)):  # another process was quicker
                raise self._failure(None, error) from None
        for field in (SPACE, KIND):
            schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=field == SPACE)
            self._ask(None, partial(self._client.create_payload_index, name, field, schema))

    def _ask(self, space: Space | None, call: Callable[[], T]) -> T:
        try:
            return call()
        except (ApiException, httpx.HTTPError) as error:
            raise self._failure(space, error) from None

    def _failure(self, space: Space | None, error: Exception) -> Exception:
        if space is not None and isinstance(error, UnexpectedResponse) and error.status_code == 404:
            return SpaceLost(f"{self._url}: collection {_collection(space.dimension)} is missing")
        return EngineUnavailable(f"{self._url}: {_line(error)}")

    def _search_client(self) -> AsyncQdrantClient:
        """Return a client for searches, one for each event loop: connections belong to one."""
        loop = asyncio.get_running_loop()
        if self._searching is None or self._searching[0] is not loop:
            self._searching = (loop, AsyncQdrantClient(**self._settings))  # type: ignore[arg-type]
        return self._searching[1]


def _collection(dimension: int) -> str:
    return f"passages_{dimension}"


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _within(space: Space, kind: str | None) -> models.Filter:
    wanted = {SPACE: str(space.version_id)} | ({KIND: kind} if kind else {})
    return models.Filter(
        must=[models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in wanted.items()]
    )


def _point_struct(space: Space, point: Point) -> models.PointStruct:
    dense = {DENSE: point.dense.tolist()} if space.dimension else {}
    return models.PointStruct(
        id=point_id(space.version_id, point.row_id, point.is_question),
        vector={
            SPARSE: models.SparseVector(indices=list(point.token_ids), values=list(point.weights)),
            **dense,
        },
        payload={SPACE: str(space.version_id), KIND: QUESTION if point.is_question else PASSAGE},
    )


def _request(
    query: list[float] | models.SparseVector,
    channel: str,
    limit: int,
    scope: models.Filter,
    params: models.SearchParams,
) -> models.QueryRequest:
    return models.QueryRequest(
        query=query, using=channel, limit=limit, filter=scope, params=params, with_payload=False, with_vector=False
    )


def _scored_rows(points: Sequence[models.ScoredPoint]) -> list[ScoredRow]:
    # The engine leaves equal scores in an arbitrary order.
    ordered = sorted((-point.score, int(point.id)) for point in points)
    return [ScoredRow(*row_of(identifier), -negative) for negative, identifier in ordered]
