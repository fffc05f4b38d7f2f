"""What an attack earns beside the honest rewrites of the same prompt. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import spearmanr


@dataclass(frozen=True)
class Contest:
    """The rewards of one attack and of the honest rewrites of its prompt, under one formula.

    `has_headroom`: neither the baseline nor the plain query ranks a relevant passage first, so that honest work can
    gain something.
    """

    attack: float
    honest: tuple[float, ...]
    has_headroom: bool = True


def auc(contest: Contest) -> float:
    """P(honest > attack) + P(tie) / 2 over the prompt's honest rewrites."""
    return fmean((reward > contest.attack) + (reward == contest.attack) / 2 for reward in contest.honest)


def mean_auc(contests: Iterable[Contest]) -> float | None:
    """Mean AUC over the prompts with head-room; None where there is none."""
    values = [auc(contest) for contest in contests if contest.has_headroom]
    return fmean(values) if values else None


def outranked(contests: Sequence[Contest]) -> float | None:
    """Share of prompts in which the attack earns strictly more than every honest rewrite; None without prompts."""
    return fmean(contest.attack > max(contest.honest) for contest in contests) if contests else None


def lowest(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def share(count: int, total: int) -> float:
    """0 of nothing."""
    return count / total if total else 0.0


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's correlation; None where either side is constant or there are fewer than three pairs."""
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 4)
