"""The same retrieval put together by hand: bm25s, and faiss where there are vectors, in memory for each tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import bm25s
import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval_runs.peers import K1, B
from rag.documents.tokenizer import tokenize
from rag.models.embedder import embedder_maker
from rag.retrieval.fusion import fuse
from rag.retrieval.retriever import CHANNEL_DEPTH


class _Tenant:
    def __init__(self, texts: Sequence[str], retriever: str):
        self._texts = texts
        self._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._bm25.index([tokenize(text) for text in texts], show_progress=False)
        self._embedder = embedder_maker(retriever).fit(texts)
        self._dense: faiss.IndexFlatIP | None = None
        if self._embedder.dimension:
            vectors = self._embedder.embed(texts)
            self._mean = vectors.mean(axis=0)
            self._dense = faiss.IndexFlatIP(self._embedder.dimension)
            self._dense.add(vectors)

    def search(self, query: str, top_k: int) -> list[str]:
        depth = min(CHANNEL_DEPTH, len(self._texts))
        known = [token for token in tokenize(query) if token in self._bm25.vocab_dict]
        keyword: dict[int, float] = {}
        if known:
            scores = self._bm25.get_scores(known)
            best = np.argpartition(-scores, depth - 1)[:depth]
            keyword = _shares(best, scores[best], 0.0)
        if self._dense is None:
            return [self._texts[place] for place in list(keyword)[:top_k]]
        vector = self._embedder.embed_query(query)
        cosines, found = self._dense.search(vector[None], depth)
        dense = _shares(found[0], cosines[0], float(vector @ self._mean))
        weight = self._embedder.dense_weight
        fused = fuse(
            (one, min(one.values(), default=0.0), part) for one, part in ((keyword, 1 - weight), (dense, weight))
        )
        return [self._texts[place] for place in list(fused)[:top_k]]


def _shares(places: NDArray[np.int64], scores: NDArray[np.float32], least: float) -> dict[int, float]:
    """Each place's score above `least` as part of the best one's, best first."""
    order = np.argsort(-scores, kind="stable")
    shares = (scores[order] - least) / max(float(scores.max()) - least, 1e-9)
    return dict(zip(places[order].tolist(), shares.clip(0).tolist(), strict=True))


class ByHand:
    def __init__(self, texts: Mapping[str, Sequence[str]], retriever: str):
        """Index `texts`: tenant → passages, with the embedder of `retriever` (`rag.models.embedder`)."""
        # One thread: searches come side by side, and the processors are few.
        faiss.omp_set_num_threads(1)
        self._tenants = {tenant: _Tenant(passages, retriever) for tenant, passages in texts.items()}

    def search(self, tenant: str, query: str, top_k: int) -> list[str]:
        """Return the best passages' texts."""
        return self._tenants[tenant].search(query, top_k)
