"""Logged rollouts scored again under other settings, and what that changes. Pure: no call is made."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward.records.outcome import Abstained, AbstainReason, Gated, Outcome, Rollout, Scored
from reward.task import Task


@dataclass(frozen=True)
class Missing:
    """The log does not hold what the requested formula needs. Never a score."""

    reason: str


@dataclass(frozen=True)
class Rescored:
    rollout: Rollout
    outcome: Outcome | Missing

    @property
    def before(self) -> float | None:
        return reward_of(self.rollout.outcome)

    @property
    def after(self) -> float | None:
        return reward_of(self.outcome)


def reward_of(outcome: Outcome | Missing) -> float | None:
    return outcome.reward if isinstance(outcome, Scored | Gated) else None


def rescore_run(rollouts: Iterable[Rollout], task: Task) -> Iterator[Rescored]:
    """Score each rollout again, in the log's order, which shaping by step depends on."""
    for rollout in rollouts:
        yield Rescored(rollout, rescore(rollout, task))


def rescore(rollout: Rollout, task: Task) -> Outcome | Missing:
    """Score one rollout again from what its calls found. One that a failed service left abstained
    stays so: it has nothing to score."""
    text = task.parse(rollout.completion)
    if (gated := task.gate(rollout.sample, text)) is not None:
        return gated
    if isinstance(rollout.outcome, Abstained) and rollout.outcome.reason is not AbstainReason.CONFLICT:
        return rollout.outcome
    if needed := task.requests(rollout.sample, text, rollout):
        if isinstance(rollout.outcome, Gated):
            return Missing("gated in the run, so nothing was asked")
        return Missing(f"the log lacks {', '.join(needed)}")
    try:
        return task.combine(rollout.sample, text, rollout, rollout.step)
    except ValueError as error:
        return Missing(str(error))


@dataclass(frozen=True)
class Mover:
    step: int
    query: str
    rewrite: str
    before: float
    after: float


class Comparison:
    """Gathers what changes between the logged rewards and the new ones; a few numbers a rollout are kept."""

    def __init__(self, movers: int = 10):
        self._wanted_movers = movers
        self._groups: dict[tuple[int, str, str], int] = {}
        self._group: list[int] = []
        self._before: list[float] = []
        self._after: list[float] = []
        self._movers: dict[tuple[str, str], Mover] = {}
        self.kinds_before: Counter[str] = Counter()
        self.kinds_after: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()
        self.rollouts = self.changed_kind = 0

    def add(self, rescored: Rescored) -> None:
        rollout, outcome = rescored.rollout, rescored.outcome
        self.rollouts += 1
        if isinstance(outcome, Missing):
            self.missing[outcome.reason] += 1
            return
        self.kinds_before[rollout.outcome.kind] += 1
        self.kinds_after[outcome.kind] += 1
        self.changed_kind += outcome.kind != rollout.outcome.kind
        before, after = rescored.before, rescored.after
        key = (rollout.step, rollout.sample.sample_id, rollout.sample.original_query)
        self._group.append(self._groups.setdefault(key, len(self._groups)))
        self._before.append(math.nan if before is None else before)
        self._after.append(math.nan if after is None else after)
        if before is not None and after is not None and before != after:
            self._add_mover(Mover(rollout.step, rollout.sample.original_query, rollout.completion, before, after))

    def _add_mover(self, mover: Mover) -> None:
        # Many siblings write the same: each query and rewrite is shown once.
        self._movers.setdefault((mover.query, mover.rewrite), mover)
        if len(self._movers) > 50 * self._wanted_movers:
            self._movers = {(m.query, m.rewrite): m for m in self.movers()}

    def movers(self) -> list[Mover]:
        """The largest changes, largest first."""
        return heapq.nlargest(self._wanted_movers, self._movers.values(), key=lambda m: abs(m.after - m.before))

    def metrics(self) -> dict[str, float]:
        """What changes, over the rollouts with a reward on both sides; a metric without any observation is left out.

        `spearman` is over all of them, `spearman_in_groups` the mean over the prompt groups (the siblings of one step)
        whose rewards differ on both sides: what a group-relative update sees. `advantage_shift` is the mean change of
        reward minus group mean, over the siblings that had a reward before.
        """
        frame = pd.DataFrame({"group": self._group, "before": self._before, "after": self._after})
        both = frame.dropna()
        metrics: dict[str, float] = {"compared": float(len(both)), "missing": float(self.missing.total())}
        gained = frame[frame.before.isna() & frame.after.notna()].after
        if len(gained):
            metrics |= {"newly_scored": float(len(gained)), "newly_scored_mean": float(gained.mean())}
        if both.empty:
            return metrics
        before, after = np.sign(both.before), np.sign(both.after)
        metrics |= {
            "mean_before": float(both.before.mean()),
            "mean_after": float(both.after.mean()),
            "identical": float((both.before == both.after).sum()),
            "flipped_up": float((after > before).sum()),
            "flipped_down": float((after < before).sum()),
        }
        if both.before.nunique() > 1 and both.after.nunique() > 1:
            metrics["spearman"] = float(both.before.corr(both.after, method="spearman"))
        return metrics | _within_groups(frame, both)


def _within_groups(frame: pd.DataFrame, both: pd.DataFrame) -> dict[str, float]:
    metrics: dict[str, float] = {}
    advantage_before = frame.before - frame.groupby("group").before.transform("mean")
    advantage_after = frame.after - frame.groupby("group").after.transform("mean")
    siblings = frame.groupby("group").before.transform("count") > 1
    shift = (advantage_after - advantage_before)[siblings].abs().dropna()
    if len(shift):
        metrics["advantage_shift"] = float(shift.mean())
    ranks = both.groupby("group")[["before", "after"]].rank()
    ranks = ranks - ranks.groupby(both.group).transform("mean")
    products = pd.DataFrame(
        {"xy": ranks.before * ranks.after, "xx": ranks.before**2, "yy": ranks.after**2, "group": both.group}
    )
    sums = products.groupby("group").sum()
    sums = sums[(sums.xx > 0) & (sums.yy > 0)]
    if len(sums):
        metrics["groups"] = float(len(sums))
        metrics["spearman_in_groups"] = float((sums.xy / (sums.xx * sums.yy) ** 0.5).mean())
    best = both.groupby("group").before.transform("max") == both.before
    best_after = both.groupby("group").after.transform("max") == both.after
    kept = (best & best_after).groupby(both.group).any()
    metrics["best_changed"] = float((~kept).sum())
    metrics["best_of"] = float(len(kept))
    return metrics
