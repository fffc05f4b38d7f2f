"""Uncertainty of held-out metrics: seeded percentile bootstrap over queries, paired throughout, and an exact sign test.

The same seed and number of queries give the same resamples, so intervals of different systems are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
# Resamples drawn at a time: bounds memory (a batch of 500 over 10 000 queries is 40 MB).
BATCH = 500


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


class WinRate(NamedTuple):
    """Counts of queries, and `rate` = wins among decided pairs with its interval; None when no pair is decided.

    `sign_p` is the exact two-sided sign test of "wins and losses are equally likely" (1.0 without a decided pair). The
    percentile bootstrap has zero width when all decided pairs go one way, however few they are; the test does not.
    """

    win: int
    tie: int
    loss: int
    rate: float | None
    interval: Interval | None
    sign_p: float


def bootstrap_mean(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Compute the 95 % percentile bootstrap interval of the mean of `values`, shape [queries].

    Source: Efron & Tibshirani 1993, ch. 13.

    Raises:
        ValueError: `values` is empty.
    """
    return bootstrap_means(np.asarray(values, dtype=np.float64)[:, None], seed=seed)[0]


def bootstrap_means(columns: ArrayLike, *, seed: int = 0) -> list[Interval]:
    """Compute the interval of `bootstrap_mean` for each column, shape [queries, columns], with the same resamples.

    Raises:
        ValueError: there are no queries.
    """
    sample = np.asarray(columns, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("bootstrap of no values")
    return [_percentiles(means) for means in _resampled_means(sample, seed).T]


def bootstrap_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> tuple[float, Interval]:
    """Compute the mean of `a - b` and its paired 95 % bootstrap interval.

    Args:
        a, b: shape [queries], in the same order of queries.

    Raises:
        ValueError: the shapes differ or are empty.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired values of shapes {first.shape} and {second.shape}")
    difference = first - second
    return float(difference.mean()), bootstrap_mean(difference, seed=seed)


def win_rate(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> WinRate:
    """Count how often `a` beats `b`, query by query: the higher value wins, equal values tie.

    The interval resamples queries, ties included, so it also carries the uncertainty of how many pairs are decided.
    Resamples without a decided pair are left out.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"win rate of {len(a)} against {len(b)} queries")
    sign = np.sign(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    win, loss = int((sign > 0).sum()), int((sign < 0).sum())
    decided = win + loss
    if decided == 0:
        return WinRate(0, len(a), 0, None, None, 1.0)
    # Drawing queries with replacement is drawing their three outcomes in proportion.
    shares = np.array([win, len(a) - decided, loss]) / len(a)
    draws = np.random.default_rng(seed).multinomial(len(a), shares, size=RESAMPLES)
    totals = draws[:, 0] + draws[:, 2]
    interval = _percentiles(draws[totals > 0, 0] / totals[totals > 0])
    p = float(binomtest(win, decided).pvalue)
    return WinRate(win, len(a) - decided, loss, win / decided, interval, p)


def share_interval(count: int, n: int) -> Interval:
    """Compute Wilson's 95 % interval of the share `count / n`: unlike the bootstrap's it has a width at 0 and 1 too."""
    found = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Interval(float(found.low), float(found.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for how many they are (Holm 1979), so that any false finding among them keeps its level."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = least
    return adjusted


def _resampled_means(columns: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Compute column means of `RESAMPLES` resamples of the rows: [queries, columns] -> [resamples, columns]."""
    rng = np.random.default_rng(seed)
    n = len(columns)
    batches = [columns[rng.integers(0, n, size=(BATCH, n))].mean(axis=1) for _ in range(RESAMPLES // BATCH)]
    return np.concatenate(batches)


def _percentiles(statistics: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(statistics, [2.5, 97.5])
    return Interval(float(low), float(high))
