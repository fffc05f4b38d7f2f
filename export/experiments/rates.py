"""Rates of two arms, their difference, how many users a test needs, and whether each arm got its share. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, chisquare, norm

CONFIDENCE = 0.95
# Below this the split is broken, not unlucky (Fabijan et al., Diagnosing sample ratio mismatch, KDD 2019).
MISMATCH = 0.001


@dataclass(frozen=True)
class Rate:
    """`successes` of `n`."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        """The share; nan of nothing."""
        return self.successes / self.n if self.n else math.nan


def rate_interval(rate: Rate) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson 1927), [0, 1] of nothing."""
    if not rate.n:
        return 0.0, 1.0
    interval = binomtest(rate.successes, rate.n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(control: Rate, treatment: Rate) -> tuple[float, float]:
    """Return the 95 % interval of treatment − control for one look (Newcombe 1998, method 10)."""
    if not control.n or not treatment.n:
        return -1.0, 1.0
    (low_c, high_c), (low_t, high_t) = rate_interval(control), rate_interval(treatment)
    difference = treatment.value - control.value
    below = math.hypot(treatment.value - low_t, high_c - control.value)
    above = math.hypot(high_t - treatment.value, control.value - low_c)
    return difference - below, difference + above


def users_needed(
    base_rate: float, effect: float, share: float = 0.5, *, alpha: float = 0.05, power: float = 0.8
) -> tuple[int, int]:
    """Return how many users control and treatment need to find `base_rate + effect` in one look at the end.

    Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), formula 4.18, without correction.

    Args:
        share: of the users that get the treatment, in (0, 1).
        alpha: two-sided.

    Raises:
        ValueError: a rate is out of (0, 1), or there is no effect.
    """
    other = base_rate + effect
    if not (0 < base_rate < 1 and 0 < other < 1 and effect and 0 < share < 1):
        raise ValueError("rates and share must lie between 0 and 1, and the effect must not be 0")
    ratio = share / (1 - share)
    mean = (base_rate + ratio * other) / (ratio + 1)
    spread_null = math.sqrt((ratio + 1) * mean * (1 - mean))
    spread = math.sqrt(ratio * base_rate * (1 - base_rate) + other * (1 - other))
    z_alpha, z_power = norm.ppf(1 - alpha / 2), norm.ppf(power)
    control = (z_alpha * spread_null + z_power * spread) ** 2 / (ratio * effect**2)
    return math.ceil(control), math.ceil(control * ratio)


def smallest_effect(base_rate: float, control: int, treatment: int, *, power: float = 0.8) -> float:
    """Return the smallest rise that so many users would show in one look at the end; nan without users."""
    if not control or not treatment or not 0 < base_rate < 1:
        return math.nan
    share = treatment / (control + treatment)
    low, high = 0.0, 1 - base_rate
    for _ in range(60):
        middle = (low + high) / 2
        if middle and base_rate + middle < 1 and users_needed(base_rate, middle, share, power=power)[0] > control:
            low = middle
        else:
            high = middle
    return high


def ratio_p_value(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Return the probability of counts at least so far from their shares (chi-square); 1 without users."""
    total = sum(counts)
    if not total or min(shares) <= 0:
        return 1.0
    return float(chisquare(counts, [share * total for share in shares]).pvalue)
