"""Reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

RRF_K = 60
Item = TypeVar("Item", bound=Hashable)


def fuse(rankings: Sequence[Sequence[Item]], weights: Sequence[float], k: int = RRF_K) -> dict[Item, float]:
    """Fuse rankings by weighted reciprocal ranks (Cormack et al. 2009): Σ weight / (k + rank), as a share of its
    maximum.

    Returns item → score in (0, 1], best first; equal scores in the order of first appearance.
    """
    scores: dict[Item, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + weight / (k + rank)
    best = sum(weights) / (k + 1)
    ordered = sorted(scores.items(), key=lambda pair: -pair[1])
    return {item: score / best for item, score in ordered}
