"""Thin adapter over Qdrant Edge: one embedded shard per knowledge base, written once by the build, then only read.

Each passage is a point with a dense vector `text_sem` and a BM25 sparse vector `text_kw` (IDF is applied by the
engine). Isolation of tenants is by shard. The payload still carries `tenant_id` and `kb`, keyword-indexed, so that
the same points can move to a Qdrant server's multi-tenant collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from rag.embedder import Embedder
from rag.ingest import IngestError, Passage
from rag.tokenizer import token_id, tokenize

STORE_ID = f"qdrant-edge-{version('qdrant-edge-py')}-v1"
DENSE, SPARSE = "text_sem", "text_kw"
BM25_K1, BM25_B = 1.2, 0.75
# Up to so many passages the dense channel compares all of them (1.4 ms for 10 000): the nearest-neighbour graph used
# beyond is approximate, and comes out differently on every build.
EXACT_UP_TO = 10_000
_PAGE = 512


@dataclass(frozen=True)
class StoredPassages:
    """All passages of a shard, by point id 0 … n-1. `token_ids[i]`: distinct tokens of passage i, ascending."""

    doc_ids: list[str]
    contents: list[str]
    token_ids: list[NDArray[np.uint32]]


def bm25_weights(tokens: list[str], mean_length: float) -> tuple[list[int], list[float]]:
    """Token ids and their BM25 term weights tf·(k1+1) / (tf + k1·(1 - b + b·length/mean)), Robertson & Zaragoza 2009.

    The IDF factor is the engine's: ln(1 + (N - df + 0.5) / (df + 0.5)).
    """
    damping = BM25_K1 * (1 - BM25_B + BM25_B * len(tokens) / mean_length)
    weights = {token_id(token): n * (BM25_K1 + 1) / (n + damping) for token, n in Counter(tokens).items()}
    return list(weights), list(weights.values())


def write_shard(
    path: Path, passages: Sequence[Passage], embedder: Embedder, tenant_id: str, kb_name: str
) -> Iterator[float]:
    """Create an optimised shard at `path`; yields the share done, up to 1.

    Runs the engine's optimiser, which blocks every thread of the process: for the build command only.
    """
    path.mkdir(parents=True)
    config = edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=embedder.dimension, distance=edge.Distance.Dot)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
        # Written once and flushed before it is renamed into place: a log would only cost 64 MB and a lock.
        wal_enabled=False,
    )
    shard = edge.EdgeShard.create(str(path), config)
    for field in ("tenant_id", "kb"):
        index = edge.KeywordIndexParams(is_tenant=field == "tenant_id")
        shard.update(edge.UpdateOperation.create_field_index(field, index))
    tokens = [tokenize(passage.content) for passage in passages]
    mean_length = max(1.0, sum(map(len, tokens)) / len(tokens))
    for start in range(0, len(passages), _PAGE):
        page = range(start, min(start + _PAGE, len(passages)))
        vectors = embedder.embed([passages[i].content for i in page]).tolist()
        points = [
            edge.Point(
                i,
                {DENSE: vectors[i - start], SPARSE: edge.SparseVector(*bm25_weights(tokens[i], mean_length))},
                {
                    "doc_id": passages[i].doc_id,
                    "content": passages[i].content,
                    "tenant_id": tenant_id,
                    "kb": kb_name,
                },
            )
            for i in page
        ]
        shard.update(edge.UpdateOperation.upsert_points(points))
        yield 0.9 * page.stop / len(passages)
    shard.optimize()
    shard.flush()
    shard.close()
    yield 1.0


class PassageStore:
    """A finished shard, opened for searching."""

    def __init__(self, path: Path):
        """
        Raises:
            IngestError: the shard is missing or damaged.
        """
        try:
            self._shard = edge.EdgeShard.load(str(path))
        except Exception as error:  # the bindings raise plain Exception, nothing narrower
            raise IngestError(f"{path}: cannot be opened ({str(error).splitlines()[0]})") from None
        self._params = edge.SearchParams(exact=self._shard.info().points_count <= EXACT_UP_TO)

    def read_passages(self) -> StoredPassages:
        doc_ids: list[str] = []
        contents: list[str] = []
        token_ids: list[NDArray[np.uint32]] = []
        offset: edge.PointId | None = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True, with_vector=[SPARSE])
            records, offset = self._shard.scroll(request)
            for record in records:
                if record.id != len(doc_ids):
                    raise IngestError(f"passage {len(doc_ids)} is missing from the index: build it again")
                payload = cast(dict[str, str], record.payload)
                vectors = cast(dict[str, edge.SparseVector], record.vector)
                doc_ids.append(payload["doc_id"])
                contents.append(payload["content"])
                token_ids.append(np.sort(np.array(vectors[SPARSE].indices, dtype=np.uint32)))
            if offset is None:
                return StoredPassages(doc_ids, contents, token_ids)

    def search_dense(self, vector: NDArray[np.float32], limit: int) -> list[int]:
        """Ids of the passages nearest to `vector`, best first, equal scores by id."""
        return self._search(edge.Query.Nearest(vector.tolist(), using=DENSE), limit)

    def search_keywords(self, token_ids: Sequence[int], limit: int) -> list[int]:
        """Ids of the passages that share a token, by BM25, best first, equal scores by id."""
        vector = edge.SparseVector(list(token_ids), [1.0] * len(token_ids))
        return self._search(edge.Query.Nearest(vector, using=SPARSE), limit)

    def close(self) -> None:
        self._shard.close()

    def _search(self, query: edge.Query, limit: int) -> list[int]:
        points = self._shard.query(
            edge.QueryRequest(limit=limit, query=query, params=self._params, with_payload=False, with_vector=False)
        )
        # The engine leaves equal scores in an arbitrary order.
        return [point_id for _, point_id in sorted((-point.score, cast(int, point.id)) for point in points)]
