"""Say what a win rate shows, in one sentence that stays true for every outcome. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

LEVEL = 0.05


class Conclusion(NamedTuple):
    """`outcome` of the first system against the second; `mixed` when win rate and mean metric clearly disagree."""

    outcome: Literal["win", "loss", "undecided", "mixed", "none"]
    sentence: str
    detail: str


def conclude(a: str, b: str, result: Mapping[str, Any]) -> Conclusion:
    """Conclude how `a` does against `b` from one `win_rate` entry of `metrics.json`.

    A win or loss is claimed only when the bootstrap interval excludes 50 % and the exact sign test agrees. The interval
    alone would claim too much: it has no width when a handful of decided queries all go one way.

    Args:
        a, b: noun phrases, lower case.
    """
    # The counts come first: without a decided query there is nothing to conclude.
    start = a[0].upper() + a[1:]
    queries = result["win"] + result["tie"] + result["loss"]
    if result["rate"] is None:
        return Conclusion(
            "undecided", f"{start} and {b} do equally well on every one of the {queries} test queries.", ""
        )
    low, high = result["ci95"]
    decided = result["win"] + result["loss"]
    metric = next(key for key in result["difference"] if key != "ci95")
    change, (change_low, change_high) = result["difference"][metric], result["difference"]["ci95"]
    # What every sentence repeats: the counts behind the rate, and how the mean metric moves beside it.
    rate = (
        f"it does better on {result['win']} and worse on {result['loss']} of the {decided} queries on which the two "
        f"differ: a win rate of {_percent(result['rate'])} (95 % interval {_percent(low)} to {_percent(high)})"
    )
    ties = f"On {result['tie']} of {queries} queries they do equally well. "
    mean = f"{_metric_phrase(metric)} {'rises' if change > 0 else 'falls' if change < 0 else 'stays'}"
    if change:
        mean += f" by {abs(change):.3f}"
    detail = f"{ties}{mean} (95 % interval of the difference {change_low:+.3f} to {change_high:+.3f})."

    # More wins can go with a lower mean: then neither system is called the better one.
    clear = result["sign_p"] < LEVEL
    if clear and low > 0.5:
        if change_high < 0:
            return Conclusion(
                "mixed", f"{start} wins more often than {b} but loses more where it loses: {rate}.", detail
            )
        return Conclusion("win", f"{start} beats {b}: {rate}.", detail)
    if clear and high < 0.5:
        if change_low > 0:
            return Conclusion("mixed", f"{start} loses to {b} more often but gains more where it wins: {rate}.", detail)
        return Conclusion("loss", f"{start} does not beat {b}, it is worse: {rate}.", detail)
    reason = "the interval includes 50 %" if low <= 0.5 <= high else "too few queries decide to rule out chance"
    return Conclusion("undecided", f"No clear difference between {a} and {b}: {rate}; {reason}.", detail)


def _percent(share: float) -> str:
    """Write a share in percent, with a digit more near 50 %, where rounding could hide which side it is on."""
    return f"{100 * share:.1f}\u00a0%" if 0.45 < share < 0.55 else f"{100 * share:.0f}\u00a0%"


def _metric_phrase(name: str) -> str:
    return "The mean score of the first hit" if name == "top1" else f"Mean {name.replace('mrr', 'MRR')}"
