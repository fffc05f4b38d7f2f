"""Say what a win rate shows, in one sentence that stays true for every outcome. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from evaluation.texts import Texts

LEVEL = 0.05


class Conclusion(NamedTuple):
    """`outcome` of the first system against the second; `mixed` when win rate and mean metric clearly disagree."""

    outcome: Literal["win", "loss", "undecided", "mixed", "none"]
    sentence: str
    detail: str


def conclude(a: str, b: str, result: Mapping[str, Any], texts: Texts) -> Conclusion:
    """Conclude how `a` does against `b` from one `win_rate` entry of `metrics.json`.

    A win or loss is claimed only when the bootstrap interval excludes 50 % and the exact sign test agrees. The interval
    alone would claim too much: it has no width when a handful of decided queries all go one way.

    Args:
        a, b: noun phrases, lower case.
        texts: of the report.
    """
    # The counts come first: without a decided query there is nothing to conclude.
    start = a[0].upper() + a[1:]
    queries = result["win"] + result["tie"] + result["loss"]
    if result.get("rate") is None:
        return Conclusion("undecided", texts("verdict.equal", a=start, b=b, queries=queries), "")
    low, high = result["ci95"]
    metric = next(key for key in result["difference"] if key != "ci95")
    change, (change_low, change_high) = result["difference"][metric], result["difference"]["ci95"]
    # What every sentence repeats: the counts behind the rate, and how the mean metric moves beside it.
    rate = texts(
        "verdict.rate",
        win=result["win"],
        loss=result["loss"],
        decided=result["win"] + result["loss"],
        rate=_percent(result["rate"]),
        low=_percent(low),
        high=_percent(high),
    )
    moves = "rises" if change > 0 else "falls" if change < 0 else "stays"
    mean = texts(
        f"verdict.{moves}",
        metric=_metric_phrase(metric, texts),
        change=f"{abs(change):.3f}",
        low=f"{change_low:+.3f}",
        high=f"{change_high:+.3f}",
    )
    detail = texts("verdict.ties", tie=result["tie"], queries=queries) + _space(texts) + mean

    # More wins can go with a lower mean: then neither system is called the better one.
    clear = result["sign_p"] < LEVEL
    if clear and low > 0.5:
        if change_high < 0:
            return Conclusion("mixed", texts("verdict.mixed_win", a=start, b=b, rate=rate), detail)
        return Conclusion("win", texts("verdict.win", a=start, b=b, rate=rate), detail)
    if clear and high < 0.5:
        if change_low > 0:
            return Conclusion("mixed", texts("verdict.mixed_loss", a=start, b=b, rate=rate), detail)
        return Conclusion("loss", texts("verdict.loss", a=start, b=b, rate=rate), detail)
    reason = texts("verdict.includes_half" if low <= 0.5 <= high else "verdict.too_few")
    return Conclusion("undecided", texts("verdict.undecided", a=a, b=b, rate=rate, reason=reason), detail)


def _percent(share: float) -> str:
    """Write a share in percent, with a digit more near 50 %, where rounding could hide which side it is on."""
    return f"{100 * share:.1f}\u00a0%" if 0.45 < share < 0.55 else f"{100 * share:.0f}\u00a0%"


def _metric_phrase(name: str, texts: Texts) -> str:
    return texts("verdict.mean_top1") if name == "top1" else texts("verdict.mean", metric=name.replace("mrr", "MRR"))


def _space(texts: Texts) -> str:
    return "" if texts.language == "zh" else " "
