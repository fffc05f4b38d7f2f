"""What goes into the dense and the keyword channel."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rag.documents.tokenizer import token_ids
from rag.models.embedder import Embedder, HashingEmbedder
from rag.models.failure import ModelFailure
from rag.models.rewriter import Rewrite
from rag.retrieval.channels import fell_back, unavailable
from rag.retrieval.search_request import Expansion, ExpansionKind

# Query2Doc (Wang et al. 2023) repeats the query five times before its pseudo-document: its tokens weigh as much more.
QUERY_WEIGHT = 5.0
# Beside typed expansions the query counts as two of their lines, as in qmd's fusion.
OWN_WEIGHT = 2.0
INLINE_TEXT = 500  # characters
# Of a longer query the first different ones count: some 700 Chinese characters. Edge keeps every thread waiting while
# it searches, 20 ms for 10,000 tokens.
MOST_TOKENS = 2000


@dataclass(frozen=True, slots=True)
class ChannelTexts:
    """What the channels search with. `keyword`, `dense`: the query's text of each channel. `pseudo_document` joins
    both, `lex` lines join the keyword channel, `vec` lines and `hyde` passages the dense one."""

    keyword: str
    dense: str
    pseudo_document: str = ""
    lex: tuple[str, ...] = ()
    vec: tuple[str, ...] = ()
    hyde: tuple[str, ...] = ()

    @property
    def tokenised(self) -> tuple[str, ...]:
        """The texts that the keyword channel reads."""
        return (self.keyword, self.pseudo_document, *self.lex)


def channel_texts(rewrite: Rewrite, pseudo_document: str, expansions: Sequence[Expansion]) -> ChannelTexts:
    """Route the rewrite's text or texts and each typed line to their channels."""

    def lines(kind: ExpansionKind) -> tuple[str, ...]:
        return tuple(line.text for line in expansions if line.kind == kind)

    keyword = rewrite.keyword_query or rewrite.text
    return ChannelTexts(keyword, rewrite.text, pseudo_document, lines("lex"), lines("vec"), lines("hyde"))


async def embedded_query(embedder: Embedder, texts: ChannelTexts, states: dict[str, str]) -> NDArray[np.float32] | None:
    """Return the vector (dimension,) that the dense channel searches with; None, and `states` says why, when the model
    did not answer."""
    if not embedder.dimension:
        states["dense"] = unavailable("no embedder is configured")
        return None
    query = f"{texts.dense}\n{texts.pseudo_document}" if texts.pseudo_document else texts.dense
    characters = sum(map(len, (query, *texts.vec, *texts.hyde)))
    try:
        # The default takes less time than handing it to a thread does, where the text is no long one.
        if isinstance(embedder, HashingEmbedder) and characters <= INLINE_TEXT:
            return _query_vector(embedder, query, texts)
        return await asyncio.to_thread(_query_vector, embedder, query, texts)
    except ModelFailure as failure:
        states["dense"] = fell_back(str(failure))
        return None


def _query_vector(embedder: Embedder, query: str, texts: ChannelTexts) -> NDArray[np.float32]:
    """Return the query's unit vector; with expansions their weighted mean, scaled to a unit vector (HyDE, Gao et al.
    2022: a passage's cosine with the mean is the mean of its cosines with the lines, but for a factor)."""
    if not texts.vec and not texts.hyde:
        return embedder.embed_query(query)
    rows = embedder.embed_lines([query, *texts.vec], texts.hyde)
    mean = OWN_WEIGHT * rows[0] + rows[1:].sum(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), np.finfo(np.float32).tiny)).astype(np.float32)


def keyword_weights(texts: ChannelTexts) -> tuple[list[int], list[float]]:
    """Return the token ids and their weights in the query: how often each occurs in it, as in BM25. Against a weight
    of 1 that brings 1 to 4 points of recall@10, the more the longer the query.

    BM25 is linear in these weights: with `lex` lines a passage has the weighted sum of its scores for query and lines.
    """
    weights = {token: float(count) for token, count in _token_counts(texts.keyword)}
    if texts.pseudo_document:
        weights = {token: QUERY_WEIGHT * weight for token, weight in weights.items()}
        for token, count in _token_counts(texts.pseudo_document):
            weights[token] = weights.get(token, 0.0) + count
    if texts.lex:
        weights = {token: OWN_WEIGHT * weight for token, weight in weights.items()}
    for line in texts.lex:
        for token, count in _token_counts(line):
            if token in weights or len(weights) < MOST_TOKENS:
                weights[token] = weights.get(token, 0.0) + count
    return list(weights), list(weights.values())


@lru_cache(maxsize=4096)
def _token_counts(text: str) -> tuple[tuple[int, int], ...]:
    """Count the tokens of a query, `MOST_TOKENS` different ones at most. Cached: a training step asks the same query
    many times."""
    counts = Counter(token_ids(text))  # in the order of their first mention
    return tuple(sorted(islice(counts.items(), MOST_TOKENS)))
