"""Points of texts: the embedder's vector and BM25 term weights, which a sparse index turns into BM25 scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.catalogue.records import IndexKey, TokenCounts
from rag.index.engine import Point
from rag.models.embedder import Embedder

BM25_K1, BM25_B = 1.2, 0.75


def bm25_weights(tokens: TokenCounts, mean_length: float) -> tuple[list[int], list[float]]:
    """Compute token ids and their BM25 term weights tf·(k1+1) / (tf + k1·(1 - b + b·length/mean)), Robertson & Zaragoza
    2009.

    The IDF factor is the engine's: ln(1 + (N - df + 0.5) / (df + 0.5)).
    """
    damping = BM25_K1 * (1 - BM25_B + BM25_B * tokens.total / mean_length)
    counts = tokens.counts.astype(np.float64)
    return tokens.token_ids.tolist(), (counts * (BM25_K1 + 1) / (counts + damping)).tolist()


def points_of(keys: Sequence[IndexKey], embedder: Embedder, mean_length: float) -> list[Point]:
    """Return one point for each key, in their order.

    Raises:
        ModelFailure: an embedder behind an endpoint did not answer.
    """
    if not keys:
        return []
    vectors = embedder.embed([key.text for key in keys])
    return [
        Point(key.row_id, key.is_question, vector, *bm25_weights(key.tokens, mean_length))
        for key, vector in zip(keys, vectors, strict=True)
    ]
