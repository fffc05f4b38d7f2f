"""Hybrid search over one knowledge base: dense and BM25 channels, fused by weighted reciprocal ranks.

Order of the hits = fused rank of the rewritten query. `score` is the fused score as a share of the best possible
one (first in both channels = 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rag.embedder import Embedder, HashingEmbedder
from rag.ingest import IngestError
from rag.lexical_reranker import LexicalReranker
from rag.manifest import EMBEDDER, SHARD, read_manifest
from rag.store import STORE_ID, PassageStore
from rag.tokenizer import TOKENIZER_ID, query_token_ids

CHANNEL_DEPTH = 30
RRF_K = 60


@dataclass(frozen=True, slots=True)
class ScoredPassage:
    content: str
    score: float
    reranker_score: float
    doc_id: str


def fuse(rankings: Sequence[Sequence[int]], weights: Sequence[float], k: int = RRF_K) -> list[tuple[int, float]]:
    """Weighted reciprocal rank fusion (Cormack et al. 2009): Σ weight / (k + rank), as a share of its maximum.

    Returns (id, score in (0, 1]), best first, equal scores by id.
    """
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + weight / (k + rank)
    best = sum(weights) / (k + 1)
    return [(item, score / best) for item, score in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))]


class KnowledgeBase:
    """One tenant's knowledge base, opened for searching. Holds its passages' texts and token sets in memory."""

    def __init__(self, index: Path):
        """
        Raises:
            IngestError: no index there, or one made with another embedder, tokenizer or engine than this code's.
        """
        self.manifest = read_manifest(index)
        for theirs, ours in (
            (self.manifest.embedder_id, HashingEmbedder.id),
            (self.manifest.embedder_dimension, HashingEmbedder.dimension),
            (self.manifest.tokenizer_id, TOKENIZER_ID),
            (self.manifest.store_id, STORE_ID),
        ):
            if theirs != ours:
                raise IngestError(f"{index}: built with {theirs}, but this is {ours}: build the index again")
        self._embedder: Embedder = HashingEmbedder.load(index / EMBEDDER)
        self._store = PassageStore(index / SHARD)
        self._passages = self._store.read_passages()
        if len(self._passages.doc_ids) != self.manifest.passages:
            found = len(self._passages.doc_ids)
            raise IngestError(f"{index}: {found} passages instead of {self.manifest.passages}: build the index again")
        self.reranker = LexicalReranker(self._passages.token_ids)

    def search(
        self, query: str, context: str, rewritten_query: str, top_k: int, score_threshold: float
    ) -> list[ScoredPassage]:
        """The first `top_k` of the fused candidates of `rewritten_query` whose reranker score, for `query` in its
        `context`, reaches `score_threshold`. Each channel proposes max(30, top_k) candidates."""
        depth = max(CHANNEL_DEPTH, top_k)
        keywords = self._store.search_keywords(query_token_ids(rewritten_query), depth)
        dense = self._store.search_dense(self._embedder.embed([rewritten_query])[0], depth)
        fused = fuse((keywords, dense), (1.0, self._embedder.fusion_weight))[:depth]
        scores = self.reranker.score(query, context, [item for item, _ in fused]).tolist()
        texts, ids = self._passages.contents, self._passages.doc_ids
        hits = [
            ScoredPassage(texts[item], round(fused_score, 6), round(score, 6), ids[item])
            for (item, fused_score), score in zip(fused, scores, strict=True)
            if round(score, 6) >= score_threshold  # as reported, so that a reported score is a valid threshold
        ]
        return hits[:top_k]

    def close(self) -> None:
        self._store.close()
