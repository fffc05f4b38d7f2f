"""Plain BM25 by bm25s: what a retrieval service has to be at least as good as."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import bm25s
import jieba
import numpy as np

from benchmarks.retrieval_runs.sets import Asked, RetrievalSet
from rag.documents.tokenizer import tokenize
from rag.learning.judged_queries import DEPTH

K1, B = 1.2, 0.75  # Lucene's
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_ENGLISH_WORD = re.compile(r"(?u)\b\w\w+\b")  # as scikit-learn and bm25s cut them


def jieba_words(text: str) -> list[str]:
    return [word for word in jieba.lcut(text.lower()) if _LETTER_OR_DIGIT.search(word)]


def latin_words(text: str) -> list[str]:
    """Cut a text whose script puts spaces between words."""
    return _ENGLISH_WORD.findall(text.lower())


class Bm25:
    """Lucene's BM25 over a set's passages, the queries' repeated tokens counted as often as they occur."""

    def __init__(self, documents: RetrievalSet, tokens: Callable[[str], list[str]] = tokenize):
        self._tokens = tokens
        passages = [passage for document in documents.documents for passage in document.passages]
        self._keys = [passage.key for passage in passages]
        self._index = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._index.index([tokens(passage.content) for passage in passages], show_progress=False)

    def rank(self, queries: Mapping[str, Asked]) -> dict[str, list[str]]:
        """Return query id → the keys of the best `DEPTH` passages that share a token; equal scores in the corpus'
        order."""
        return {query: self._best(asked.text) for query, asked in queries.items()}

    def _best(self, text: str) -> list[str]:
        known = [token for token in self._tokens(text) if token in self._index.vocab_dict]
        if not known:
            return []
        scores = self._index.get_scores(known)
        order = np.argsort(-scores, kind="stable")[:DEPTH]
        return [self._keys[place] for place in order if scores[place] > 0]
