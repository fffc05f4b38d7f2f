"""The same retrieval put together by hand: bm25s and faiss in memory for each tenant, fused by reciprocal ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import bm25s
import faiss
import numpy as np

from benchmarks.retrieval_runs.peers import K1, B
from rag.documents.tokenizer import tokenize
from rag.models.embedder import embedder_maker
from rag.retrieval.fusion import fuse
from rag.retrieval.retriever import CHANNEL_DEPTH


class _Tenant:
    def __init__(self, texts: Sequence[str]):
        self._texts = texts
        self._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._bm25.index([tokenize(text) for text in texts], show_progress=False)
        self._embedder = embedder_maker("hashing").fit(texts)
        self._dense = faiss.IndexFlatIP(self._embedder.dimension)
        self._dense.add(self._embedder.embed(texts))

    def search(self, query: str, top_k: int) -> list[str]:
        depth = min(CHANNEL_DEPTH, len(self._texts))
        known = [token for token in tokenize(query) if token in self._bm25.vocab_dict]
        keyword: list[int] = []
        if known:
            scores = self._bm25.get_scores(known)
            best = np.argpartition(-scores, depth - 1)[:depth]
            keyword = best[np.argsort(-scores[best], kind="stable")].tolist()
        _, found = self._dense.search(self._embedder.embed_query(query)[None], depth)
        fused = fuse((keyword, found[0].tolist()), (1.0, self._embedder.fusion_weight))
        return [self._texts[place] for place in list(fused)[:top_k]]


class ByHand:
    def __init__(self, texts: Mapping[str, Sequence[str]]):
        """Index `texts`: tenant → passages."""
        # One thread: searches come side by side, and the processors are few.
        faiss.omp_set_num_threads(1)
        self._tenants = {tenant: _Tenant(passages) for tenant, passages in texts.items()}

    def search(self, tenant: str, query: str, top_k: int) -> list[str]:
        """Return the best passages' texts."""
        return self._tenants[tenant].search(query, top_k)
