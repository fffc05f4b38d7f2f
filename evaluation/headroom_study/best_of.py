"""Best of k draws, estimated without bias from n ≥ k draws; and what a choice without the answer would get. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def expected_best(values: Sequence[float], k: int) -> float:
    """Return the unbiased estimate of the best of `k` independent draws, from n ≥ k draws.

    It is the mean of the maximum over all subsets of size k: sum over the i-th smallest value of
    v_i · C(i - 1, k - 1) / C(n, k). For values of 0 and 1 that is pass@k, 1 - C(n - c, k) / C(n, k)
    (Chen et al. 2021, arXiv 2107.03374). The plain maximum of n draws overstates the best of fewer.

    Raises:
        ValueError: there are fewer than `k` values, or `k` is not positive.
    """
    n = len(values)
    if not 1 <= k <= n:
        raise ValueError(f"best of {k} from {n} draws")
    ordered = sorted(values)
    return sum(value * comb(i - 1, k - 1) for i, value in enumerate(ordered, start=1)) / comb(n, k)


def chosen_by(values: Sequence[float], scores: Sequence[float]) -> float:
    """Return the value of the draw with the highest score, the mean of them where several share it.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    if len(values) != len(scores) or not values:
        raise ValueError(f"{len(values)} values and {len(scores)} scores")
    highest = max(scores)
    best = [value for value, score in zip(values, scores, strict=True) if score == highest]
    return sum(best) / len(best)


def steps_to(n: int) -> list[int]:
    """Return 1, 2, 4, … and n."""
    steps = [1]
    while 2 * steps[-1] < n:
        steps.append(2 * steps[-1])
    return steps if n == 1 else [*steps, n]
