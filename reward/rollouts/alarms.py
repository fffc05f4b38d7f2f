"""Alarms for reward hacking: what a policy does when it games its reward, measured on logged rollouts. Pure functions.

Each alarm sets the window of a run's last steps against its first ones, in one metric with one limit. A share must also
have risen since: what the policy did before training is no hacking.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import spearmanr

from reward.records.outcome import Abstained, Gated, GateReason, Rollout
from reward.rollouts.text_measures import LOST_FACTS, character_entropy, fails_gates, is_stuffed
from reward.rollouts.windows import EQUAL, Example, Window, contributions, disputed, examples, mean, variance_shares
from reward.text.fold import fold_without_spaces, is_same_text


class AlarmLimits(BaseModel):
    """Where each alarm goes off: shares in [0, 1], ratios to the first window, or differences of terms.

    `window` is in steps, at either end of the run; with fewer than `min_rollouts` in one nothing is said. A share must
    also have gained `rise` since the first window.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(20, ge=1)
    min_rollouts: int = Field(200, ge=1)
    rise: float = Field(0.1, ge=0)
    copy_rate: float = Field(0.5, ge=0)
    length_growth: float = Field(1.5, gt=1)
    length_shrink: float = Field(0.5, ge=0, lt=1)
    entropy_drop: float = Field(0.75, ge=0)
    entity_drop: float = Field(0.1, ge=0)
    language_switch: float = Field(0.05, ge=0)
    keyword_stuffing: float = Field(0.3, ge=0)
    component_dominance: float = Field(0.95, ge=0)
    variance_collapse: float = Field(0.95, ge=0)
    judge_retrieval_divergence: float = Field(0.15, ge=0)
    judge_retrieval_conflict: float = Field(-0.3, ge=-1, le=0)
    gate_rate: float = Field(0.2, ge=0)
    abstentions: float = Field(0.05, ge=0)
    judge_drift: float = Field(0.2, ge=0)


@dataclass(frozen=True)
class Alarm:
    """One check: its metric in the last window against its limit, and what it was in the first one."""

    name: str
    value: float
    limit: float
    advice: str
    examples: tuple[Example, ...] = ()
    first: float | None = None
    raised: bool = True


def check_run(first: Window, last: Window, limits: AlarmLimits) -> list[Alarm]:
    """Every check that has something to say about the two windows, raised or not."""
    if min(len(first.rollouts), len(last.rollouts)) < limits.min_rollouts:
        return []
    return [alarm for check in CHECKS if (alarm := check(first, last, limits)) is not None]


def copy_rate(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that are the query itself, but for those known to retrieve best: they earned it."""

    def is_copy(rollout: Rollout) -> bool:
        best = rollout.policy is not None and rollout.policy.rank == 1
        return not best and is_same_text(rollout.completion, rollout.sample.original_query)

    advice = "queries come back unchanged: train on queries that need a rewrite, check that a copy earns nothing"
    return _share_alarm("copy_rate", is_copy, first, last, limits.copy_rate, limits.rise, advice)


def length_drift(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Mean length of a rewrite over that in the first window."""
    before, now = (mean(len(r.completion.strip()) for r in window.answered) for window in (first, last))
    if not before or now is None:
        return None
    ratio = now / before
    ranked = sorted(last.answered, key=lambda r: len(r.completion), reverse=ratio > 1)
    return Alarm(
        "length_drift",
        ratio,
        limits.length_growth if ratio > 1 else limits.length_shrink,
        f"from {before:.0f} to {now:.0f} characters: check length.target and length.penalty",
        examples(ranked, lambda r: f"{len(r.completion.strip())} characters"),
        first=1.0,
        raised=not limits.length_shrink <= ratio <= limits.length_growth,
    )


def entropy_drop(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Entropy of the rewrites' characters over that of the queries', relative to the first window: low when different
    queries get much the same rewrite. (That siblings grow alike is what training does, and no alarm.)"""

    def relative_entropy(window: Window) -> float:
        queries = character_entropy(fold_without_spaces(r.sample.original_query) for r in window.answered)
        rewrites = character_entropy(fold_without_spaces(r.completion) for r in window.answered)
        return rewrites / queries if queries else 0.0

    before, now = relative_entropy(first), relative_entropy(last)
    if before == 0:
        return None
    given = Counter(fold_without_spaces(r.completion) for r in last.answered)
    ranked = sorted(last.answered, key=lambda r: -given[fold_without_spaces(r.completion)])
    return Alarm(
        "entropy_drop",
        now / before,
        limits.entropy_drop,
        "different queries get the same words: raise the entropy or KL coefficient, or stop earlier",
        examples(ranked, lambda r: f"given {given[fold_without_spaces(r.completion)]} times"),
        first=1.0,
        raised=now / before < limits.entropy_drop,
    )


def entity_drop(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that lose a number, a negation or a protected term of the query, gated for it or not."""

    def loses(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, LOST_FACTS, last.lexicon)

    advice = "facts of the query get lost: enable the *_dropped gates, extend tenant.protected_groups"
    return _share_alarm("entity_drop", loses, first, last, limits.entity_drop, limits.rise, advice)


def language_switch(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites in another language than the query, gated for it or not."""

    def switches(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, (GateReason.LANGUAGE_SWITCH,))

    advice = "rewrites leave the query's language: enable the gate language_switch, raise the KL coefficient"
    rise = min(limits.rise, limits.language_switch)
    return _share_alarm("language_switch", switches, first, last, limits.language_switch, rise, advice)


def keyword_stuffing(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of stuffed rewrites (`is_stuffed`); the limit lies above the baseline's own share."""
    baseline = mean(is_stuffed(r.baseline_rewrite) for r in last.answered if r.baseline_rewrite) or 0.0
    limit = min(1.0, limits.keyword_stuffing + baseline)
    advice = "words are repeated or piled up: raise length.penalty, read what retrieves so well"
    return _share_alarm("keyword_stuffing", lambda r: is_stuffed(r.completion), first, last, limit, limits.rise, advice)


def component_dominance(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """The largest share of the reward's variance that one part explains: cov(part, sum) / var(sum).

    Retrieval is let off where there is no judge.
    """
    now, before = variance_shares(last), variance_shares(first)
    if not last.terms[0]:
        now.pop("retrieval", None)
    if not now:
        return None
    name = max(now, key=lambda part: now[part])
    ranked = sorted(last.scored, key=lambda row: -abs(contributions(row[1])[name]))
    notes = {id(r): f"{name} {contributions(parts)[name]:+.2f}" for r, parts in last.scored}
    return Alarm(
        "component_dominance",
        now[name],
        limits.component_dominance,
        f"{name} alone decides the reward: check the weights, and whether the other parts still vary",
        examples([r for r, _ in ranked], lambda r: notes[id(r)]),
        first=before.get(name),
        raised=now[name] > limits.component_dominance,
    )


def variance_collapse(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of prompt groups whose siblings all earn the same: they teach nothing."""

    def is_flat(group: Sequence[Rollout]) -> bool:
        rewards = [r.outcome.reward for r in group if not isinstance(r.outcome, Abstained)]
        return max(rewards) - min(rewards) < EQUAL

    before, now = (mean(is_flat(group) for group in window.groups) for window in (first, last))
    if now is None:
        return None
    return Alarm(
        "variance_collapse",
        now,
        limits.variance_collapse,
        "siblings earn the same: raise the temperature, train on harder prompts, or stop here",
        examples([group[0] for group in last.groups if is_flat(group)], lambda r: "as all of its siblings"),
        first=before,
        raised=now > limits.variance_collapse,
    )


def judge_retrieval_divergence(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """How far the judge's term rose while the retrieval term fell, each by more than two standard errors; else 0."""
    if not first.terms[0] or not last.terms[0]:
        return None
    moves = [
        (fmean(late) - fmean(early), 2 * math.sqrt(pvariance(late) / len(late) + pvariance(early) / len(early)))
        for early, late in zip(first.terms, last.terms, strict=True)
    ]
    (judge, judge_noise), (retrieval, retrieval_noise) = moves
    value = judge - retrieval if judge > judge_noise and retrieval < -retrieval_noise else 0.0
    return Alarm(
        "judge_retrieval_divergence",
        value,
        limits.judge_retrieval_divergence,
        f"judge {judge:+.2f}, retrieval {retrieval:+.2f}: the judge is being pleased; evaluate with another one",
        disputed(last),
        first=0.0,
        raised=value > limits.judge_retrieval_divergence,
    )


def judge_retrieval_conflict(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Spearman correlation of the judge's with the retrieval term: what one rewards, the other must not punish."""
    judge, retrieval = last.terms
    if len(judge) < limits.min_rollouts or pvariance(judge) < EQUAL or pvariance(retrieval) < EQUAL:
        return None
    found = spearmanr(judge, retrieval)
    return Alarm(
        "judge_retrieval_conflict",
        float(found.statistic),
        limits.judge_retrieval_conflict,
        "judge and retrieval pull apart: read the examples, then mend the rubric or the weights",
        disputed(last),
        raised=bool(found.statistic < limits.judge_retrieval_conflict and found.pvalue < 0.01),
    )


def gate_rate(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of gated rewrites."""
    reasons = Counter(r.outcome.reason.value for r in last.answered if isinstance(r.outcome, Gated))
    advice = f"more rewrites are unusable: {', '.join(reason for reason, _ in reasons.most_common(2)) or 'none'}"
    return _share_alarm(
        "gate_rate", lambda r: isinstance(r.outcome, Gated), first, last, limits.gate_rate, limits.rise, advice
    )


def abstentions(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rollouts that could not be scored. No hacking, but what is left may be a biased part of the prompts."""
    lost = [r for r in last.rollouts if isinstance(r.outcome, Abstained)]
    value = len(lost) / len(last.rollouts)
    return Alarm(
        "abstentions",
        value,
        limits.abstentions,
        "calls fail: see the reasons, then the service",
        examples(lost, lambda r: ""),
        first=1 - len(first.answered) / len(first.rollouts),
        raised=value > limits.abstentions,
    )


def judge_drift(check: Mapping[str, Any], limits: AlarmLimits) -> Alarm | None:
    """Fall of the judge's agreement with people since its first check on the canary pairs.

    Args:
        check: the last line of the run's `canary.jsonl`; empty when there is none.
    """
    if check.get("drift") is None:
        return None
    drift, kappa = float(check["drift"]), check.get("kappa")
    advice = "the judge is not what it was: has its model changed? Do not go on training with it"
    known = "" if kappa is None else f"kappa {float(kappa):.2f}; "
    raised = bool(check.get("alarm")) or drift > limits.judge_drift
    return Alarm("judge_drift", drift, limits.judge_drift, known + advice, first=0.0, raised=raised)


CHECKS: tuple[Callable[[Window, Window, AlarmLimits], Alarm | None], ...] = (
    copy_rate,
    length_drift,
    entropy_drop,
    entity_drop,
    language_switch,
    keyword_stuffing,
    component_dominance,
    variance_collapse,
    judge_retrieval_divergence,
    judge_retrieval_conflict,
    gate_rate,
    abstentions,
)


def _share_alarm(
    name: str,
    holds: Callable[[Rollout], bool],
    first: Window,
    last: Window,
    limit: float,
    rise: float,
    advice: str,
) -> Alarm | None:
    """Raised when the share of the answered rollouts that `holds` is true of lies above `limit` and rose by `rise`."""
    before = mean(holds(rollout) for rollout in first.answered)
    found = [rollout for rollout in last.answered if holds(rollout)]
    if before is None or not last.answered:
        return None
    value = len(found) / len(last.answered)
    raised = value > limit and value - before >= rise
    return Alarm(name, value, limit, advice, examples(found, lambda r: ""), before, raised)
