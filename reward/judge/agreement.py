"""What a canary check says of a judge: agreement with people, position bias, drift. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from reward.records.outcome import JudgeMode
from reward.records.sample import Record

RESAMPLES = 2000
Label = Literal["a", "b", "tie"]
LABELS: tuple[Label, ...] = ("a", "tie", "b")


class JudgedPair(Record):
    """`judged` is `None` when the judge failed. Scores are 综合得分 (pointwise, batched); `orders` are the labels that
    the judge gave with A first and with B first (pairwise)."""

    step: int = 0
    pair_id: str
    preferred: Label
    judged: Label | None = None
    score_a: float | None = None
    score_b: float | None = None
    orders: tuple[Label, Label] | None = None


class CanaryCheck(Record):
    """The figures of one check, over the pairs that were judged; `None` where there is none to count.

    Args:
        judge: model and version.
        agreement: share of pairs where judge and people say the same.
        kappa, kappa_low, kappa_high: Cohen's kappa over the labels a, tie, b, and its 95 % bootstrap interval.
        flipped: share of pairs whose winner changes with the order (pairwise).
        first_preference: wins of the place shown first minus those of the second, by verdicts; 0 is fair (pairwise).
        cost: yuan.
        drift: kappa of the first check minus this one.
        overall_change: mean absolute change of 综合得分 since the first check (pointwise, batched).
        relabelled: share of pairs on which the judge has changed its mind since the first check.
        alarm: `drift` is beyond its limit.
    """

    judge: str
    mode: JudgeMode
    step: int
    judged: int
    failed: int
    agreement: float | None = None
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    flipped: float | None = None
    first_preference: float | None = None
    cost: float = 0.0
    drift: float | None = None
    overall_change: float | None = None
    relabelled: float | None = None
    alarm: bool = False


def summarise(judge: str, mode: JudgeMode, step: int, pairs: Sequence[JudgedPair], cost: float = 0.0) -> CanaryCheck:
    """The figures of one check, without those of drift."""
    known = [pair for pair in pairs if pair.judged is not None]
    failed = len(pairs) - len(known)
    check = CanaryCheck(judge=judge, mode=mode, step=step, judged=len(known), failed=failed, cost=cost)
    if not known:
        return check
    table = confusion([pair.preferred for pair in known], [pair.judged for pair in known if pair.judged])
    figures: dict[str, float] = {"agreement": float(np.trace(table) / table.sum())}
    kappa = float(cohen_kappa(table))
    if not np.isnan(kappa):
        low, high = kappa_interval(table, seed=0)
        figures |= {"kappa": kappa, "kappa_low": low, "kappa_high": high}
    if both := [pair.orders for pair in known if pair.orders]:
        # The place shown first wins when the first order says a and when the second one says b.
        first = sum((one == "a") + (two == "b") for one, two in both)
        second = sum((one == "b") + (two == "a") for one, two in both)
        figures["flipped"] = float(np.mean([one != two for one, two in both]))
        figures["first_preference"] = (first - second) / (2 * len(both))
    return check.model_copy(update=figures)


def add_drift(
    check: CanaryCheck,
    pairs: Sequence[JudgedPair],
    first: CanaryCheck | None,
    first_pairs: Sequence[JudgedPair],
    limit: float,
) -> CanaryCheck:
    """`check` with how far the judge has moved since the `first` one, over the pairs judged in both; `limit` is the
    fall of kappa that raises the alarm."""
    if first is None:
        return check
    before = {pair.pair_id: pair for pair in first_pairs if pair.judged is not None}
    both = [(before[pair.pair_id], pair) for pair in pairs if pair.judged is not None and pair.pair_id in before]
    changes = [
        abs(old - new)
        for one, two in both
        for old, new in ((one.score_a, two.score_a), (one.score_b, two.score_b))
        if old is not None and new is not None
    ]
    drift = None if first.kappa is None or check.kappa is None else first.kappa - check.kappa
    return check.model_copy(
        update={
            "drift": drift,
            "overall_change": float(np.mean(changes)) if changes else None,
            "relabelled": float(np.mean([one.judged != two.judged for one, two in both])) if both else None,
            "alarm": drift is not None and drift > limit,
        }
    )


def confusion(people: Sequence[Label], judge: Sequence[Label]) -> np.ndarray:
    """Counts of shape (3, 3): what people say by what the judge says, in the order of `LABELS`."""
    table = np.zeros((len(LABELS), len(LABELS)))
    np.add.at(table, ([LABELS.index(label) for label in people], [LABELS.index(label) for label in judge]), 1)
    return table


def cohen_kappa(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa of confusion tables of shape (..., k, k): (p_o - p_e) / (1 - p_e). NaN where both sides always give
    the same single label. (Cohen, A coefficient of agreement for nominal scales, 1960.)"""
    shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
    observed = np.trace(shares, axis1=-2, axis2=-1)
    expected = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def kappa_interval(table: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap interval of kappa over pairs: drawing n pairs with replacement is drawing a table of n
    from its cells."""
    count = int(table.sum())
    draws = np.random.default_rng(seed).multinomial(count, table.ravel() / count, size=RESAMPLES)
    kappas = cohen_kappa(draws.reshape(-1, *table.shape))
    low, high = np.nanpercentile(kappas, [2.5, 97.5]) if not np.isnan(kappas).all() else (np.nan, np.nan)
    return float(low), float(high)
