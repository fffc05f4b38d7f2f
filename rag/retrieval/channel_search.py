"""What goes into the dense and the keyword channel, and the passages that come out of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.records import RowKey, StoredPassage
from rag.documents.tokenizer import token_id, tokenize
from rag.index.engine import ScoredRow
from rag.models.embedder import Embedder, HashingEmbedder
from rag.models.failure import ModelFailure
from rag.retrieval.channels import fell_back

# Query2Doc (Wang et al. 2023) repeats the query five times before its pseudo-document: its tokens weigh as much more.
QUERY_WEIGHT = 5.0


@dataclass(frozen=True, slots=True)
class ChannelRank:
    """`rank` from 1; `score` is the channel's own, comparable within one channel of one search."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """Of one channel: passage id → its rank and score, and the row that found it; best first."""

    ranks: dict[int, ChannelRank]
    rows: dict[int, RowKey]


async def embedded_query(
    embedder: Embedder, query: str, pseudo_document: str, states: dict[str, str]
) -> NDArray[np.float32] | None:
    """Return the vector (dimension,) of the query and what was imagined for it; None, and `states` says why, when the
    model did not answer."""
    text = f"{query}\n{pseudo_document}" if pseudo_document else query
    try:
        # The default takes less time than handing it to a thread does.
        if isinstance(embedder, HashingEmbedder):
            return embedder.embed_query(text)
        return await asyncio.to_thread(embedder.embed_query, text)
    except ModelFailure as failure:
        states["dense"] = fell_back(str(failure))
        return None


def keyword_weights(query: str, pseudo_document: str) -> tuple[list[int], list[float]]:
    """Return the token ids and their weights in the query: how often each occurs in it, as in BM25. Against a weight
    of 1 that brings 1 to 4 points of recall@10, the more the longer the query."""
    weights = {token: float(count) for token, count in _token_counts(query)}
    if pseudo_document:
        weights = {token: QUERY_WEIGHT * weight for token, weight in weights.items()}
        for token, count in _token_counts(pseudo_document):
            weights[token] = weights.get(token, 0.0) + count
    return list(weights), list(weights.values())


@lru_cache(maxsize=4096)
def _token_counts(text: str) -> tuple[tuple[int, int], ...]:
    """Count the tokens of a query. Cached: a training step asks the same query many times."""
    return tuple(sorted(Counter(map(token_id, tokenize(text))).items()))


def by_passage(rows: Sequence[ScoredRow], behind: Mapping[RowKey, StoredPassage], depth: int) -> Found:
    """Return the best row of each passage; rows whose passage is gone are passed over."""
    found = Found({}, {})
    for row in rows:
        key = RowKey(row.row_id, row.is_question)
        passage = behind.get(key)
        if passage is None or passage.id in found.ranks:
            continue
        if len(found.ranks) == depth:
            break
        found.ranks[passage.id] = ChannelRank(len(found.ranks) + 1, round(row.score, 6))
        found.rows[passage.id] = key
    return found
