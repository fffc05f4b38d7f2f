"""Hard negatives: passages that first-stage retrieval ranks high for a query and that are no answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reranker.data.records import Passage, Record, fold
from reranker.settings.run import MiningSettings
from reward.records.files import BadInput

NEAR_COPY = 0.8  # Jaccard similarity of character pairs with an answer, above which a passage is one too
_BATCH = 64


@dataclass
class Mined:
    """`negatives`: by record; `guarded`: passages left out since they may be answers; `none`: queries without any."""

    negatives: list[tuple[Passage, ...]] = field(default_factory=list)
    guarded: int = 0

    @property
    def none(self) -> int:
        return sum(not found for found in self.negatives)


def passages_of(records: Sequence[Record], pool: Sequence[Passage]) -> list[Passage]:
    """Return every passage once, by text, in order of appearance."""
    found: dict[str, Passage] = {}
    for record in records:
        for passage in (*record.positives, *record.negatives):
            found.setdefault(fold(passage.text), passage)
    for passage in pool:
        found.setdefault(fold(passage.text), passage)
    return list(found.values())


def mine(records: Sequence[Record], passages: Sequence[Passage], settings: MiningSettings) -> Mined:
    """Return for each record the passages of its ranking that are none of its answers and not too near to one.

    Near is a copy but for a fifth of its character pairs; with an embedder also a score above `guard` times that of the
    query's best answer (BM25 scores of different texts cannot be compared so: an answer in other words would have any).

    Raises:
        BadInput: the embedder cannot be loaded.
    """
    depth = min(settings.depth + max((len(record.positives) for record in records), default=0), len(passages))
    rank = _dense_ranks if settings.embedder else _bm25_ranks
    found = Mined()
    places = {fold(passage.text): place for place, passage in enumerate(passages)}
    for record, ranked, scores in zip(records, *rank(records, passages, depth, settings), strict=True):
        answers = {places[fold(one.text)] for one in record.positives}
        pairs = [_pairs(one.text) for one in record.positives]
        best = max((score for place, score in scores.items() if place in answers), default=None)
        taken: list[Passage] = []
        for place in ranked:
            if place in answers:
                continue
            near = any(_jaccard(_pairs(passages[place].text), of_answer) >= NEAR_COPY for of_answer in pairs)
            scored = settings.embedder is not None and best is not None and scores[place] > settings.guard * best
            if near or scored:
                found.guarded += 1
            else:
                taken.append(passages[place])
        found.negatives.append(tuple(taken[: settings.depth]))
    return found


Ranks = tuple[list[list[int]], list[dict[int, float]]]


def _bm25_ranks(records: Sequence[Record], passages: Sequence[Passage], depth: int, settings: MiningSettings) -> Ranks:
    try:
        import bm25s
    except ImportError:
        raise BadInput("data.mining without an embedder needs bm25s: install the extra 'reranker'") from None
    index = bm25s.BM25()
    index.index([words(passage.text) for passage in passages], show_progress=False)
    asked = [words(record.query) for record in records]
    ids, scores = index.retrieve(asked, k=depth, show_progress=False)
    ranks, by_place = [], []
    for row, of_row in zip(ids, scores, strict=True):
        known = {int(place): float(score) for place, score in zip(row, of_row, strict=True) if score > 0}
        ranks.append(list(known))
        by_place.append(known)
    return ranks, by_place


def _dense_ranks(records: Sequence[Record], passages: Sequence[Passage], depth: int, settings: MiningSettings) -> Ranks:
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(str(settings.embedder), local_files_only=True)
    except Exception as error:  # every library below has exceptions of its own for a broken folder
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"data.mining.embedder: {settings.embedder}: no model that can be loaded ({reason})") from None
    options = {"batch_size": _BATCH, "normalize_embeddings": True, "show_progress_bar": False}
    of_passages = model.encode_document([passage.text for passage in passages], **options)
    of_queries = model.encode_query([record.query for record in records], **options)
    places = {fold(passage.text): place for place, passage in enumerate(passages)}
    ranks, by_place = [], []
    for record, query in zip(records, of_queries, strict=True):
        scores: NDArray[np.float32] = of_passages @ query
        ranked = [int(place) for place in np.argsort(-scores, kind="stable")[:depth]]
        answers = [places[fold(one.text)] for one in record.positives]  # their scores are the guard's measure
        ranks.append(ranked)
        by_place.append({place: float(scores[place]) for place in (*ranked, *answers)})
    return ranks, by_place


def words(text: str) -> list[str]:
    """Cut a text into lower-case words, Chinese ones by jieba."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return [word for word in jieba.lcut(text.lower()) if word.strip()]


def _pairs(text: str) -> set[str]:
    plain = "".join(character for character in fold(text) if character.isalnum())
    return {plain[i : i + 2] for i in range(max(1, len(plain) - 1))}


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / max(1, len(a | b))
