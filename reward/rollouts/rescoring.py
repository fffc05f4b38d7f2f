"""Logged rollouts scored again under other settings, and what that changes. Pure: no call is made."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reward.records.outcome import Abstained, AbstainReason, Evidence, Gated, Judgement, Outcome, Rollout, Scored
from reward.records.sample import Sample
from reward.rewrite import formulas
from reward.rewrite.combination import check_text, combine
from reward.settings.recipe import RewardSettings

RECENT = 100  # base rewards whose mean `formulas.shaping_factor` compares with
# The first draft's grades where the judge failed.
NEUTRAL_JUDGEMENT = Judgement(mode="pointwise", policy_score=3.0, baseline_score=3.0, intent=3.0)


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


def rescore_run(
    rollouts: Iterable[Rollout],
    settings: RewardSettings,
    protected_terms: Callable[[Sample], Sequence[str]],
    *,
    neutral_failures: bool = False,
    has_judge: bool = False,
) -> Iterator[Rescored]:
    """Each rollout under `settings`, in the log's order, which adaptive shaping depends on.

    Args:
        neutral_failures, has_judge: see `rescore`.
    """
    recent: deque[float] = deque(maxlen=RECENT)
    for rollout in rollouts:
        terms = protected_terms(rollout.sample) if settings.formula == "v2" else ()  # v1 has no gates
        outcome = rescore(rollout, settings, terms, neutral_failures=neutral_failures, has_judge=has_judge)
        shaped = settings.formula == "v1" and settings.adaptive_shaping and rollout.sample.metadata.split == "train"
        if shaped and isinstance(outcome, Scored):
            recent.append(outcome.reward)
            factor = formulas.shaping_factor(rollout.step, outcome.reward, sum(recent) / len(recent))
            outcome = formulas.shape(outcome, factor)
        yield Rescored(rollout, outcome)


def rescore(
    rollout: Rollout,
    settings: RewardSettings,
    protected_terms: Sequence[str],
    *,
    neutral_failures: bool = False,
    has_judge: bool = False,
) -> Outcome | Missing:
    """One rollout under `settings`, before any shaping by step.

    Args:
        neutral_failures: score an abstained rollout as the first draft would have: no hits for a retrieval that failed,
            3.0 for both rewrites where the judge failed. Otherwise it stays abstained, and does so in any case without
            the baseline's rewrite: then there was nothing to compare with.
        has_judge: the run asked a judge about every rollout, so that a missing judgement is a failed one.
    """
    rewrite, logged = rollout.completion.strip(), rollout.outcome
    gated = check_text(settings, protected_terms, rollout.sample, rewrite)
    if gated is not None:
        return gated
    policy, baseline, judgement = rollout.policy, rollout.baseline, rollout.judgement
    if isinstance(logged, Abstained):
        if not neutral_failures or not rollout.baseline_rewrite:
            return logged
        policy, baseline = policy or Evidence(), baseline or Evidence()
        if has_judge or logged.reason in (AbstainReason.JUDGE, AbstainReason.BUDGET):
            judgement = judgement or NEUTRAL_JUDGEMENT
    if policy is None or baseline is None:
        return Missing("gated in the run, so nothing was retrieved")
    if judgement is not None and settings.formula == "v1" and judgement.policy_score is None:
        return Missing("v1 needs the judge's scores, the run asked for preferences")
    if judgement is None and settings.formula == "v2" and settings.weight_retrieval == 0:
        return Missing("only the judge has a weight, and there is no judgement")
    return combine(settings, rollout.sample, rewrite, policy, baseline, judgement)


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

    def figures(self) -> dict[str, float]:
        """What changes, over the rollouts with a reward on both sides; a figure without any observation is left out.

        `spearman` is over all of them, `spearman_in_groups` the mean over the prompt groups (the siblings of one step)
        whose rewards differ on both sides: what a group-relative update sees. `advantage_shift` is the mean change of
        reward minus group mean, over the siblings that had a reward before: failures scored as neutral move it.
        """
        frame = pd.DataFrame({"group": self._group, "before": self._before, "after": self._after})
        both = frame.dropna()
        figures: dict[str, float] = {"compared": float(len(both)), "missing": float(self.missing.total())}
        gained = frame[frame.before.isna() & frame.after.notna()].after
        if len(gained):
            figures |= {"newly_scored": float(len(gained)), "newly_scored_mean": float(gained.mean())}
        if both.empty:
            return figures
        before, after = np.sign(both.before), np.sign(both.after)
        figures |= {
            "mean_before": float(both.before.mean()),
            "mean_after": float(both.after.mean()),
            "identical": float((both.before == both.after).sum()),
            "flipped_up": float((after > before).sum()),
            "flipped_down": float((after < before).sum()),
        }
        if both.before.nunique() > 1 and both.after.nunique() > 1:
            figures["spearman"] = float(both.before.corr(both.after, method="spearman"))
        return figures | _within_groups(frame, both)


def _within_groups(frame: pd.DataFrame, both: pd.DataFrame) -> dict[str, float]:
    figures: dict[str, float] = {}
    advantage_before = frame.before - frame.groupby("group").before.transform("mean")
    advantage_after = frame.after - frame.groupby("group").after.transform("mean")
    siblings = frame.groupby("group").before.transform("count") > 1
    shift = (advantage_after - advantage_before)[siblings].abs().dropna()
    if len(shift):
        figures["advantage_shift"] = float(shift.mean())
    ranks = both.groupby("group")[["before", "after"]].rank()
    ranks = ranks - ranks.groupby(both.group).transform("mean")
    products = pd.DataFrame(
        {"xy": ranks.before * ranks.after, "xx": ranks.before**2, "yy": ranks.after**2, "group": both.group}
    )
    sums = products.groupby("group").sum()
    sums = sums[(sums.xx > 0) & (sums.yy > 0)]
    if len(sums):
        figures["groups"] = float(len(sums))
        figures["spearman_in_groups"] = float((sums.xy / (sums.xx * sums.yy) ** 0.5).mean())
    best = both.groupby("group").before.transform("max") == both.before
    best_after = both.groupby("group").after.transform("max") == both.after
    kept = (best & best_after).groupby(both.group).any()
    figures["best_changed"] = float((~kept).sum())
    figures["best_of"] = float(len(kept))
    return figures
