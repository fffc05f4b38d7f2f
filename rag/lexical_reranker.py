"""Relevance of a passage to what the user asked: calibrated IDF-weighted coverage. It scores, it never reorders.

It reads the *original* query and the context, not the rewrite that retrieved the passage, so a rewrite cannot raise
the score by drifting off the user's intent.

coverage    = (c_query + w·c_context) / (1 + w), w = CONTEXT_WEIGHT (0 without context); c_x = IDF mass of the
              distinct tokens of x found in the passage / IDF mass of all of them. Tokens of the query do not count
              again in the context; tokens that no passage holds count with the largest IDF.
calibration = (1 + h)·coverage / (coverage + h), h = HALF_SATURATION: 0 at 0, 1 at 1, 0.6 at coverage 0.12, and not
              saturating where good hits lie (a logistic curve would make them all equal).

0.12 is where, over 2000 labelled Chinese queries (medical and encyclopaedic), a passage is about as likely to be the
relevant one as one drawn at random. At score >= 0.6: 78-81 % of relevant medical passages, 99.6 % of encyclopaedic
ones, and 4-10 % of random passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from rag.tokenizer import query_token_ids

RERANKER_ID = "lexical-coverage-v1"
CONTEXT_WEIGHT = 0.25
HALF_SATURATION = 0.1
# Of a longer context the end counts: the most recent turns. Characters.
CONTEXT_LENGTH = 2000


def calibrate(coverage: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coverage in [0, 1] to a score in [0, 1]; strictly increasing."""
    return (1 + HALF_SATURATION) * coverage / (coverage + HALF_SATURATION)


class LexicalReranker:
    """Scores passages of one knowledge base. Token sets and IDF are laid out once, at load time."""

    id = RERANKER_ID

    def __init__(self, token_ids: Sequence[NDArray[np.uint32]]):
        """`token_ids[i]`: the distinct tokens of passage i."""
        flat = np.concatenate(token_ids)
        self._vocabulary, columns = np.unique(flat, return_inverse=True)
        row_starts = np.concatenate(([0], np.cumsum([len(tokens) for tokens in token_ids])))
        shape = (len(token_ids), len(self._vocabulary))
        self._passages = csr_matrix((np.ones(len(flat), np.float32), columns, row_starts), shape=shape)
        frequencies = np.bincount(columns, minlength=len(self._vocabulary))
        n = len(token_ids)
        self._idf = np.log1p((n - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
        self._unseen_idf = float(np.log1p((n + 0.5) / 0.5))
        self._token_weights = lru_cache(maxsize=1024)(self._compute_token_weights)

    def score(self, query: str, context: str, passages: Sequence[int]) -> NDArray[np.float32]:
        """Score in [0, 1] of each of `passages` (indices) for the user's own query in its context."""
        columns, weights = self._token_weights(query, context[-CONTEXT_LENGTH:])
        by_token = np.zeros(len(self._vocabulary), np.float32)
        by_token[columns] = weights
        coverage = self._passages[np.asarray(passages, dtype=np.intp)] @ by_token
        return calibrate(np.clip(coverage, 0, 1))

    def _compute_token_weights(self, query: str, context: str) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Vocabulary columns of the tokens asked for, and the share of coverage that each is worth."""
        asked = np.array(query_token_ids(query), dtype=np.uint32)
        background = np.setdiff1d(np.array(query_token_ids(context), dtype=np.uint32), asked)
        columns, weights = self._shares(asked)
        if not len(background):
            return columns, weights
        more_columns, more_weights = self._shares(background)
        if not len(asked):
            return more_columns, more_weights
        shares = np.concatenate((weights, CONTEXT_WEIGHT * more_weights)) / np.float32(1 + CONTEXT_WEIGHT)
        return np.concatenate((columns, more_columns)), shares

    def _shares(self, token_ids: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Columns of the known ones among `token_ids`, and each one's share of the IDF mass of all of them."""
        places = np.minimum(np.searchsorted(self._vocabulary, token_ids), len(self._vocabulary) - 1)
        known = places[self._vocabulary[places] == token_ids]
        idf = self._idf[known]
        mass = float(idf.sum()) + self._unseen_idf * (len(token_ids) - len(known))
        return known, idf / np.float32(mass or 1.0)
