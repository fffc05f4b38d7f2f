"""Alarms for reward hacking: what a policy does when it games its reward, measured on logged rollouts. Pure functions.

Each alarm sets the window of a run's last steps against its first ones, in one metric with one limit. A share must also
have risen since: what the policy did before training is no hacking.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, pvariance
from typing import Any

from scipy.stats import spearmanr

from reward.records.outcome import Abstained, AbstainReason, Gated, Parts, Rollout, Scored
from reward.rewrite.formulas import rank_value
from reward.rollouts.alarm import Alarm, AlarmLimits, share_alarm
from reward.rollouts.text_alarms import (
    baseline_copies,
    copy_rate,
    entity_drop,
    entropy_drop,
    free_riders,
    invented_facts,
    keyword_stuffing,
    language_switch,
    length_drift,
    recitals,
)
from reward.rollouts.windows import EQUAL, Window, contributions, disputed, examples, mean, variance_shares
from reward.settings.recipe import TaskName


def check_run(first: Window, last: Window, limits: AlarmLimits, task: TaskName = "rewrite") -> list[Alarm]:
    """Every check of the task that has something to say about the two windows, raised or not."""
    if min(len(first.rollouts), len(last.rollouts)) < limits.min_rollouts:
        return []
    return [alarm for check in CHECKS[task] if (alarm := check(first, last, limits)) is not None]


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
    """How far the judge's term rose beyond the retrieval term that did not rise with it; else 0.

    The judge's has to rise by two standard errors. Retrieval rises with it when it gains a fifth as much, or two
    standard errors of its own.
    """
    if not first.terms[0] or not last.terms[0]:
        return None
    moves = [
        (fmean(late) - fmean(early), 2 * math.sqrt(pvariance(late) / len(late) + pvariance(early) / len(early)))
        for early, late in zip(first.terms, last.terms, strict=True)
    ]
    (judge, judge_noise), (retrieval, retrieval_noise) = moves
    follows = retrieval >= min(judge / 5, retrieval_noise)
    value = judge - retrieval if judge > judge_noise and not follows else 0.0
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


def reward_without_retrieval(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """How far the reward rose, penalties aside, while what is retrieved did not get better; else 0.

    Retrieval is phi of the relevant passage's rank, or the first hit's score where none is known. It has to rise by a
    fifth of what the reward gained, or by two standard errors.
    """
    moves = []
    for read in (_earned, _retrieved):
        early, late = ([value for row in window.scored if (value := read(row)) is not None] for window in (first, last))
        if len(early) < 2 or len(late) < 2:
            return None
        noise = 2 * math.sqrt(pvariance(late) / len(late) + pvariance(early) / len(early))
        moves.append((fmean(late) - fmean(early), noise))
    (reward, reward_noise), (retrieval, retrieval_noise) = moves
    is_flat = retrieval < reward / 5 and retrieval < retrieval_noise
    value = reward if reward > reward_noise and is_flat else 0.0
    ranked = sorted(last.scored, key=lambda row: -row[1].weight_judge * (row[1].judge or 0.0))
    return Alarm(
        "reward_without_retrieval",
        value,
        limits.reward_without_retrieval,
        f"reward {reward:+.2f}, retrieval {retrieval:+.2f}: something else is being paid; read the examples",
        examples([r for r, _ in ranked], lambda r: ""),
        first=0.0,
        raised=value > limits.reward_without_retrieval,
    )


def _earned(row: tuple[Rollout, Parts]) -> float | None:
    rollout, parts = row
    reward = rollout.outcome.reward if isinstance(rollout.outcome, Scored) else None
    if reward is None or not parts.weight_retrieval:
        return None
    return reward + parts.length_penalty + parts.recital_penalty


def _retrieved(row: tuple[Rollout, Parts]) -> float | None:
    rollout, parts = row
    return rank_value(parts.policy_rank) if rollout.sample.relevant_doc_ids else parts.policy_top1


def gate_rate(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of gated rewrites."""
    reasons = Counter(r.outcome.reason.value for r in last.answered if isinstance(r.outcome, Gated))
    advice = f"more rewrites are unusable: {', '.join(reason for reason, _ in reasons.most_common(2)) or 'none'}"
    return share_alarm(
        "gate_rate", lambda r: isinstance(r.outcome, Gated), first, last, limits.gate_rate, limits.rise, advice
    )


def abstentions(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rollouts that could not be scored. No hacking, but what is left may be a biased part of the prompts."""
    lost, before = ([r for r in window.rollouts if _is_lost(r)] for window in (last, first))
    value = len(lost) / len(last.rollouts)
    return Alarm(
        "abstentions",
        value,
        limits.abstentions,
        "calls fail: see the reasons, then the service",
        examples(lost, lambda r: ""),
        first=len(before) / len(first.rollouts),
        raised=value > limits.abstentions,
    )


def _is_lost(rollout: Rollout) -> bool:
    return isinstance(rollout.outcome, Abstained) and not _is_conflict(rollout)


def _is_conflict(rollout: Rollout) -> bool:
    outcome = rollout.outcome
    return isinstance(outcome, Abstained) and outcome.reason is AbstainReason.CONFLICT


def teacher_conflicts(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rollouts on which the teacher flags what the rules find good: they earn nothing. It must have risen."""
    at_odds, before = ([r for r in window.rollouts if _is_conflict(r)] for window in (last, first))
    value, was = len(at_odds) / len(last.rollouts), len(before) / len(first.rollouts)
    return Alarm(
        "teacher_conflicts",
        value,
        limits.abstentions,
        "teacher and rules drift apart: have a reviewer look (evaluation.medical_review)",
        examples(at_odds, lambda r: ""),
        first=was,
        raised=value > limits.abstentions and value > was,
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


Check = Callable[[Window, Window, AlarmLimits], Alarm | None]
_OF_REWRITING: tuple[Check, ...] = (
    copy_rate,
    baseline_copies,
    recitals,
    invented_facts,
    free_riders,
    length_drift,
    entropy_drop,
    entity_drop,
    language_switch,
    keyword_stuffing,
    component_dominance,
    variance_collapse,
    judge_retrieval_divergence,
    judge_retrieval_conflict,
    reward_without_retrieval,
    gate_rate,
    abstentions,
)
# What reads a rewrite as one line of text, or compares it with a baseline, does not apply to typed lines.
_OF_EXPANSION: tuple[Check, ...] = (
    recitals,
    length_drift,
    entropy_drop,
    variance_collapse,
    reward_without_retrieval,
    gate_rate,
    abstentions,
)
# A medical answer competes with no baseline and retrieves nothing; what it must not say its rules read.
_OF_MEDICINE: tuple[Check, ...] = (
    copy_rate,
    length_drift,
    entropy_drop,
    variance_collapse,
    teacher_conflicts,
    gate_rate,
    abstentions,
)
CHECKS: dict[TaskName, tuple[Check, ...]] = {
    "rewrite": _OF_REWRITING,
    "expansion": _OF_EXPANSION,
    "medical": _OF_MEDICINE,
}
