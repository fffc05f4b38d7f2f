"""What a training step does with its rollouts: which ones may train, what is logged, and when to stop.

Pure functions over the flat fields that `reward.verl_reward` returns per rollout; the trainer adapter calls them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward.records.call import SCORING_KINDS, CallKind
from reward.records.outcome import AbstainReason
from reward.settings.recipe import BreakerSettings


def trainable(group_ids: Sequence[str], abstained: Sequence[bool], group_size: int) -> list[bool]:
    """Which rollouts may train: the scored ones of every group that kept at least half of its `group_size`.

    A group smaller than that is dropped whole, and so is a lone survivor of a larger group: without siblings its raw
    reward would be its advantage (design of reward v2, "Abstain").

    Args:
        group_ids: the prompt of each rollout. Rollouts the trainer lost itself are absent and count as missing.
        abstained: whether that rollout could not be scored.
        group_size: rollouts per prompt asked for; 1 for PPO with a critic.
    """
    survivors = Counter(group for group, lost in zip(group_ids, abstained, strict=True) if not lost)
    needed = 1 if group_size == 1 else max(2, (group_size + 1) // 2)
    return [not lost and survivors[group] >= needed for group, lost in zip(group_ids, abstained, strict=True)]


def step_metrics(rollouts: Sequence[Mapping[str, Any]], kept: Sequence[bool]) -> dict[str, float]:
    """Return a step's metrics that every task has: reward, outcomes by reason, and calls.

    A metric without any observation in the step is left out. Abstained rollouts have no reward.

    Args:
        rollouts: the flat fields of each (`reward.engine.flat_fields`).
        kept: whether it trains (`trainable`).
    """
    dropped = float(sum(not k for k in kept))
    return {**outcome_metrics(rollouts), "dropped_from_training": dropped, **call_metrics(rollouts)}


def outcome_metrics(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean reward of the rollouts that have one, and each outcome as a share of all, then by reason."""
    metrics: dict[str, float] = {}
    rewards = [r["score"] for r in rollouts if not r["abstained"]]
    if rewards:
        metrics["avg_reward"] = sum(rewards) / len(rewards)
    for kind in ("gated", "abstained"):
        metrics[kind] = sum(float(r[kind]) for r in rollouts) / len(rollouts)
        for reason, count in Counter(r["reason"] for r in rollouts if r[kind]).items():
            metrics[f"{kind}/{reason}"] = count / len(rollouts)
    for failure, count in Counter(r["failure"] for r in rollouts if r["abstained"] and r["failure"]).items():
        metrics[f"abstained/{failure}"] = count / len(rollouts)
    return metrics


def call_metrics(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the step's rollouts asked of the services.

    `cache_hit_rate` and `<kind>_joined_rate` are shares of the answers asked for: of retrievals those that needed no
    request, of any kind those that joined a request under way. Latencies and queue times are percentiles in seconds
    over the rollouts that made a request. `reward_wait_seconds`: from the start of the last rollout's scoring, when all
    text had been generated, to the end of the last scoring.
    """
    metrics: dict[str, float] = {}
    for kind in SCORING_KINDS:
        asked = sum(r[f"{kind}_asked"] for r in rollouts)
        metrics[f"{kind}_api_calls"] = sum(r[f"{kind}_made"] for r in rollouts)
        if asked:
            metrics[f"{kind}_joined_rate"] = sum(r[f"{kind}_joined"] for r in rollouts) / asked
            answered = sum(r[f"{kind}_answered"] for r in rollouts)
            hit_rate = 1 - answered / asked
            metrics["cache_hit_rate" if kind is CallKind.RAG else f"{kind}_cache_hit_rate"] = hit_rate
        seconds = [r[f"{kind}_seconds"] for r in rollouts if r[f"{kind}_answered"]]
        if seconds:
            metrics[f"{kind}_seconds_p50"], metrics[f"{kind}_seconds_p95"] = np.percentile(seconds, (50, 95)).tolist()
    queued = [r["queued"] for r in rollouts if any(r[f"{kind}_answered"] for kind in SCORING_KINDS)]
    if queued:
        metrics["queued_seconds_p50"], metrics["queued_seconds_p95"] = np.percentile(queued, (50, 95)).tolist()
    for name, total in (("judge_input_tokens", "input_tokens"), ("judge_output_tokens", "output_tokens")):
        metrics[name] = sum(r[total] for r in rollouts)
    metrics["cost_cny"] = sum(r["cost"] for r in rollouts)
    metrics["reward_wait_seconds"] = max(r["ended"] for r in rollouts) - max(r["started"] for r in rollouts)
    return metrics


def same_reward_share(group_ids: Sequence[str], rewards: Sequence[float], kept: Sequence[bool]) -> float | None:
    """Return the share of groups whose siblings all earn the same: relative to each other they teach nothing.

    Groups with a single rollout that trains do not count; None where there are no others.
    """
    groups: dict[str, list[float]] = {}
    for group, reward, trains in zip(group_ids, rewards, kept, strict=True):
        if trains:
            groups.setdefault(group, []).append(reward)
    several = [earned for earned in groups.values() if len(earned) > 1]
    return sum(max(earned) == min(earned) for earned in several) / len(several) if several else None


def is_outage(rollout: Mapping[str, Any]) -> bool:
    """Say whether a rollout could not be scored because a service failed; a teacher at odds with the rules is none."""
    return bool(rollout["abstained"]) and rollout["reason"] != AbstainReason.CONFLICT


class AbstentionBreaker:
    """Trips when more rollouts than the allowed share of a whole window could not be scored.

    The count is held against the full window even before it has filled: one lost call in a first, small step is noise.
    """

    def __init__(self, settings: BreakerSettings):
        self._settings = settings
        self._recent: deque[bool] = deque(maxlen=settings.window)

    def record(self, abstained: Sequence[bool]) -> None:
        self._recent.extend(abstained)

    @property
    def share(self) -> float:
        """Share of abstentions among the recent rollouts, 0 before the first one."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def tripped(self) -> bool:
        return sum(self._recent) > self._settings.max_abstained * self._settings.window
