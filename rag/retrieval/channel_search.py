"""What goes into the dense and the keyword channel."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rag.documents.tokenizer import token_ids
from rag.models.embedder import Embedder, HashingEmbedder
from rag.models.failure import ModelFailure
from rag.retrieval.channels import fell_back

# Query2Doc (Wang et al. 2023) repeats the query five times before its pseudo-document: its tokens weigh as much more.
QUERY_WEIGHT = 5.0
INLINE_TEXT = 500  # characters
# Of a longer query the first different ones count: some 700 Chinese characters. Edge keeps every thread waiting while
# it searches, 20 ms for 10,000 tokens.
MOST_TOKENS = 2000


async def embedded_query(
    embedder: Embedder, query: str, pseudo_document: str, states: dict[str, str]
) -> NDArray[np.float32] | None:
    """Return the vector (dimension,) of the query and what was imagined for it; None, and `states` says why, when the
    model did not answer."""
    text = f"{query}\n{pseudo_document}" if pseudo_document else query
    try:
        # The default takes less time than handing it to a thread does, where the text is no long one.
        if isinstance(embedder, HashingEmbedder) and len(text) <= INLINE_TEXT:
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
    """Count the tokens of a query, `MOST_TOKENS` different ones at most. Cached: a training step asks the same query
    many times."""
    counts = Counter(token_ids(text))  # in the order of their first mention
    return tuple(sorted(islice(counts.items(), MOST_TOKENS)))
