"""Relevance of a passage to what the user asked: calibrated IDF-weighted coverage. It scores, it never reorders.

It reads the *original* query and the context, not the rewrite that retrieved the passage, so a rewrite cannot raise
the score by drifting off the original intent.

coverage    = (c_query + w·c_context) / (1 + w), w = CONTEXT_WEIGHT (0 without context); c_x = IDF mass of the
              distinct tokens of x found in the passage / IDF mass of all of them. Tokens of the query do not count
              again in the context; tokens that no passage holds count with the largest IDF.
calibration = (1 + h)·coverage / (coverage + h), h = HALF_SATURATION: 0 at 0, 1 at 1, 0.6 at coverage 0.12, and not
              saturating where good hits are (a logistic curve would make them all equal).

0.12 is where, over 2000 labelled Chinese queries (medical and encyclopaedic), a passage is about as likely to be the
relevant one as one drawn at random. At score >= 0.6: 78-81 % of relevant medical passages, 99.6 % of encyclopaedic
ones, and 4-10 % of random passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.token_statistics import TokenStatistics
from rag.documents.tokenizer import query_token_ids

RERANKER_ID = "lexical-coverage-v1"
CONTEXT_WEIGHT = 0.25
HALF_SATURATION = 0.1
# Of a longer context the end counts: the most recent turns. Characters.
CONTEXT_LENGTH = 2000


def calibrate(coverage: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn coverage in [0, 1] into a score in [0, 1]; strictly increasing."""
    return (1 + HALF_SATURATION) * coverage / (coverage + HALF_SATURATION)


class LexicalReranker:
    """Scores passages by the token statistics of their knowledge base's last build."""

    id = RERANKER_ID

    def __init__(self, statistics: TokenStatistics):
        self._vocabulary = statistics.token_ids
        n, frequencies = statistics.passages, statistics.frequencies.astype(np.float32)
        self._idf = np.log1p((n - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        self._unseen_idf = float(np.log1p((n + 0.5) / 0.5))
        self._token_weights = lru_cache(maxsize=1024)(self._compute_token_weights)

    def prepare(self, query: str, context: str) -> None:
        """Read the query and its context, which takes a while where they are long; `score` remembers it."""
        self._token_weights(query, context[-CONTEXT_LENGTH:])

    def score(self, query: str, context: str, passages: Sequence[NDArray[np.uint32]]) -> NDArray[np.float32]:
        """Score in [0, 1] of each passage, given as its distinct tokens, for the original query in its context."""
        tokens, weights = self._token_weights(query, context[-CONTEXT_LENGTH:])
        if not len(tokens) or not passages:
            return np.zeros(len(passages), np.float32)
        flat = np.concatenate(passages)
        places = np.minimum(np.searchsorted(tokens, flat), len(tokens) - 1)
        shares = np.where(tokens[places] == flat, weights[places], np.float32(0))
        owners = np.repeat(np.arange(len(passages)), [len(passage) for passage in passages])
        coverage = np.bincount(owners, shares, len(passages)).astype(np.float32)
        return calibrate(np.clip(coverage, 0, 1))

    def _compute_token_weights(self, query: str, context: str) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return the tokens asked for, ascending, and the share of coverage that each is worth."""
        asked = np.array(query_token_ids(query), dtype=np.uint32)
        if not context:
            return asked, self._shares(asked)
        background = np.setdiff1d(np.array(query_token_ids(context), dtype=np.uint32), asked)
        if not len(background):
            return asked, self._shares(asked)
        if not len(asked):
            return background, self._shares(background)
        tokens = np.concatenate((asked, background))
        shares = np.concatenate((self._shares(asked), CONTEXT_WEIGHT * self._shares(background)))
        order = np.argsort(tokens)
        return tokens[order], shares[order] / np.float32(1 + CONTEXT_WEIGHT)

    def _shares(self, token_ids: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return each token's share of the IDF mass of all of them; one that no passage holds weighs most."""
        idf = np.full(len(token_ids), self._unseen_idf, np.float32)
        if len(self._vocabulary):
            places = np.minimum(np.searchsorted(self._vocabulary, token_ids), len(self._vocabulary) - 1)
            known = self._vocabulary[places] == token_ids
            idf[known] = self._idf[places[known]]
        return idf / np.float32(idf.sum() or 1.0)
