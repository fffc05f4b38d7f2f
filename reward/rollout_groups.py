"""What a training step does with its rollouts: which ones may train, what is logged, and when to stop.

Pure functions over the flat fields that `reward.verl_reward` returns per rollout; the trainer adapter calls them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from reward.settings import BreakerSettings


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


def step_metrics(
    rollouts: Sequence[Mapping[str, Any]], kept: Sequence[bool], *, policy_label: str, baseline_label: str
) -> dict[str, float]:
    """The step's figures under the names of the user's dashboards (spec 1, "Monitored every step").

    A figure without any observation in the step is left out rather than invented. The win rate is that of the decided
    pairs, as in the evaluation.
    """
    metrics: dict[str, float] = {}

    def mean(name: str, values: Sequence[float]) -> None:
        if values:
            metrics[name] = sum(values) / len(values)

    answered = [r for r in rollouts if not r["abstained"]]
    scored = [r for r in answered if not r["gated"]]
    # A gated rewrite could not be used at all: it has lost to the baseline.
    wins, losses = sum(r["win"] for r in scored), sum(r["loss"] or r["gated"] for r in answered)
    mean("avg_reward", [r["score"] for r in answered])
    if wins + losses:
        metrics[f"{policy_label}_win_rate"] = wins / (wins + losses)
    mean(f"{policy_label}_avg_top1", [r["policy_top1"] for r in scored])
    mean(f"{baseline_label}_avg_top1", [r["baseline_top1"] for r in scored])
    mean("reward_retrieval", [r["retrieval"] for r in scored])
    mean("reward_length_penalty", [r["length_penalty"] for r in scored])
    mean("weight_retrieval", [r["weight_retrieval"] for r in scored])
    mean("weight_judge", [r["weight_judge"] for r in scored])
    lookups = sum(r["lookups"] for r in rollouts)
    metrics["rag_api_calls"] = float(lookups - sum(r["cache_hits"] for r in rollouts))
    if lookups:
        metrics["cache_hit_rate"] = sum(r["cache_hits"] for r in rollouts) / lookups
    mean("gated", [float(r["gated"]) for r in rollouts])
    mean("abstained", [float(r["abstained"]) for r in rollouts])
    metrics["dropped_from_training"] = float(sum(not k for k in kept))
    for kind in ("gated", "abstained"):
        for reason, count in Counter(r["reason"] for r in rollouts if r[kind]).items():
            metrics[f"{kind}/{reason}"] = count / len(rollouts)
    return metrics


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
