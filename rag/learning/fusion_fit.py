"""Fit the fusion of a knowledge base's channels, and check on queries held out that nothing gets worse. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.learning.click_evidence import normalize_query
from rag.learning.judged_queries import DEPTH, MEASURES, Difference, paired_difference, query_metrics
from rag.retrieval.fusion import Candidates, FusionWeights, final_order, fuse_channels

OBJECTIVE = "nDCG@10"
LEAST_QUERIES = 20  # of each part: below, an interval says nothing
_HELD_OUT = (2, 5)  # two of five queries are held out
_DENSE = tuple(round(step / 20, 2) for step in range(21))
_COARSE = (0.0, 0.25, 0.5, 0.75, 1.0)

Metrics = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class JudgedSearch:
    """What the channels found for one query, what the cross-encoder gave the candidates (by passage id; empty without
    one), and the keys of its relevant passages."""

    text: str
    candidates: Candidates
    judged: Mapping[int, float]
    relevant: tuple[str, ...]

    def ranking(self, weights: FusionWeights) -> list[str]:
        """Return the passage keys that a search with these weights gives, best first."""
        keys = {passage.id: passage.key for passage in self.candidates.behind.values()}
        fused = fuse_channels(self.candidates.found(weights), weights)
        best = list(fused)[: self.candidates.depth]
        if self.judged:
            best = final_order(fused, {i: self.judged.get(i, 0.0) for i in best}, weights)
        return [keys[i] for i in best[:DEPTH]]


@dataclass(frozen=True)
class FusionFit:
    """The weights found and, on the held-out queries, each measure's mean before and after and the paired difference.
    `refused`: why the weights before stay in force, "" where the new ones are better."""

    weights: FusionWeights
    before: FusionWeights
    queries: int
    held_out: int
    means: dict[str, tuple[float, float]]
    changes: dict[str, Difference]
    singles: dict[str, float]
    refused: str


def is_held_out(query: str) -> bool:
    """Return whether a query checks: by a hash of its words, so that the same question is on one side only."""
    part, of = _HELD_OUT
    return zlib.crc32(normalize_query(query).encode()) % of < part


def fit_fusion(searches: Sequence[JudgedSearch], before: FusionWeights) -> FusionFit | None:
    """Choose the weights of the best mean nDCG@10 on three fifths of the queries, and hold them against `before` on the
    others; None where either part has fewer than `LEAST_QUERIES`.

    Refused unless nDCG@10 of the held-out queries rises for sure (95 % interval above 0), no other measure's mean
    falls, and no channel alone is better.
    """
    fitted_on = [search for search in searches if not is_held_out(search.text)]
    held_out = [search for search in searches if is_held_out(search.text)]
    if min(len(fitted_on), len(held_out)) < LEAST_QUERIES:
        return None
    best, best_mean = before, _mean(fitted_on, before)
    for grid in (_channel_grid(fitted_on, before), _rerank_grid(fitted_on)):
        start = best
        for change in grid:
            tried = FusionWeights(**({name: getattr(start, name) for name in FusionWeights.__slots__} | change))
            mean = _mean(fitted_on, tried)
            if mean > best_mean:
                best, best_mean = tried, mean
    old, new = _metrics(held_out, before), _metrics(held_out, best)
    changes = {name: paired_difference(new[name], old[name]) for name in MEASURES}
    singles = {
        name: _mean(held_out, FusionWeights(dense, best.questions, 0.0))
        for name, dense in (("keyword", 0.0), ("dense", 1.0))
        if all(name in search.candidates.channels for search in held_out)
    }
    means = {name: (float(old[name].mean()), float(new[name].mean())) for name in MEASURES}
    refused = _refusal(best, before, means, changes, singles)
    return FusionFit(best, before, len(searches), len(held_out), means, changes, singles, refused)


def _channel_grid(searches: Sequence[JudgedSearch], before: FusionWeights) -> Iterator[dict[str, float]]:
    found = [rows for one in searches for rows in one.candidates.channels.values()]
    has_questions = any(row.is_question for rows in found for row in rows.rows)
    both = all(len(one.candidates.channels) == 2 for one in searches)
    for questions in _COARSE if has_questions else (before.questions,):
        for dense in _DENSE if both else (before.dense,):
            yield {"dense": dense, "questions": questions}


def _rerank_grid(searches: Sequence[JudgedSearch]) -> Iterator[dict[str, float]]:
    if any(search.judged for search in searches):
        yield from ({"rerank": part} for part in _COARSE)


def _refusal(
    best: FusionWeights,
    before: FusionWeights,
    means: Mapping[str, tuple[float, float]],
    changes: Mapping[str, Difference],
    singles: Mapping[str, float],
) -> str:
    if best == before:
        return "no weights are better than those in force"
    change = changes[OBJECTIVE]
    if change.low <= 0:
        return (
            f"{OBJECTIVE} of the held-out queries is not surely better: "
            f"{change.mean:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        )
    for name, (old, new) in means.items():
        if new < old:
            return f"{name} of the held-out queries falls from {old:.3f} to {new:.3f}"
    for name, alone in singles.items():
        if alone > means[OBJECTIVE][1]:
            return f"{name} alone is better on the held-out queries: {OBJECTIVE} {alone:.3f}"
    return ""


def _metrics(searches: Sequence[JudgedSearch], weights: FusionWeights) -> Metrics:
    names = {str(place): search for place, search in enumerate(searches)}
    return query_metrics(
        {name: search.ranking(weights) for name, search in names.items()},
        {name: search.relevant for name, search in names.items()},
    )


def _mean(searches: Sequence[JudgedSearch], weights: FusionWeights) -> float:
    return float(_metrics(searches, weights)[OBJECTIVE].mean())
