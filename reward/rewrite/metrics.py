"""What the trainer logs of rewriting: the parts of a rollout's reward, and a step's metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward.records.outcome import Parts, Rollout, Scored
from reward.text.fold import is_same_text
from reward.text.units import new_content


def rollout_fields(rollout: Rollout) -> dict[str, float]:
    """Return the parts of a rollout's reward as flat numbers.

    An absent number is 0; `judged`, `gated` and `abstained` tell the two apart.
    """
    outcome, judgement = rollout.outcome, rollout.judgement
    parts = outcome.parts if isinstance(outcome, Scored) else Parts()
    # Formula v3 has measured it already.
    content = parts.new_content
    if content is None:
        content = new_content(rollout.completion, rollout.sample.original_query)
    return {
        "win": float(parts.versus_baseline > 0),
        "loss": float(parts.versus_baseline < 0),
        "retrieval": parts.retrieval or 0.0,
        "judged": float(parts.judge is not None),
        "judge": parts.judge or 0.0,
        "policy_judge_score": (judgement and judgement.policy_score) or 0.0,
        "baseline_judge_score": (judgement and judgement.baseline_score) or 0.0,
        "length_penalty": parts.length_penalty,
        "recital_penalty": parts.recital_penalty,
        "idle_penalty": parts.idle_penalty,
        "bonus": parts.bonus,
        "shaping": parts.shaping,
        "weight_retrieval": parts.weight_retrieval,
        "weight_judge": parts.weight_judge,
        "policy_top1": parts.policy_top1 or 0.0,
        "baseline_top1": parts.baseline_top1 or 0.0,
        "policy_rank": float(parts.policy_rank or 0),
        "baseline_rank": float(parts.baseline_rank or 0),
        "plain_rank": float(parts.plain_rank or 0),
        "new_content": content,
        "copied": float(is_same_text(rollout.completion, rollout.sample.original_query)),
        "copied_run": float(parts.copied_run),
        "idle_units": float(parts.idle_units),
        "lexical": parts.lexical,
        "length": float(len(rollout.completion.strip())),
    }


def step_metrics(rollouts: Sequence[Mapping[str, Any]], policy_label: str, baseline_label: str) -> dict[str, float]:
    """Return a step's metrics of the competition.

    `<policy>_win_rate` is wins over all answered rollouts, `<policy>_win_rate_decided` wins over the decided ones, as
    in the evaluation. A gated rewrite is unusable: it has lost.
    """
    metrics: dict[str, float] = {}

    def mean(name: str, values: Sequence[float]) -> None:
        if values:
            metrics[name] = sum(values) / len(values)

    answered = [r for r in rollouts if not r["abstained"]]
    scored = [r for r in answered if not r["gated"]]
    judged = [r for r in scored if r["judged"]]

    # Who won.
    wins, losses = sum(r["win"] for r in scored), sum(r["loss"] or r["gated"] for r in answered)
    if answered:
        metrics[f"{policy_label}_win_rate"] = wins / len(answered)
        metrics["decided_share"] = (wins + losses) / len(answered)
    if wins + losses:
        metrics[f"{policy_label}_win_rate_decided"] = wins / (wins + losses)
    mean(f"{policy_label}_avg_top1", [r["policy_top1"] for r in scored])
    mean(f"{baseline_label}_avg_top1", [r["baseline_top1"] for r in scored])

    # What the reward is made of.
    for part in ("retrieval", "length_penalty", "recital_penalty", "idle_penalty", "bonus"):
        mean(f"reward_{part}", [r[part] for r in scored])
    mean("reward_judge", [r["judge"] for r in judged])
    mean(f"{policy_label}_judge_score", [r["policy_judge_score"] for r in judged if r["policy_judge_score"]])
    mean(f"{baseline_label}_judge_score", [r["baseline_judge_score"] for r in judged if r["baseline_judge_score"]])
    mean("weight_retrieval", [r["weight_retrieval"] for r in scored])
    mean("weight_judge", [r["weight_judge"] for r in scored])

    # What the text looks like.
    mean("copy_rate", [r["copied"] for r in rollouts])
    mean("new_content", [r["new_content"] for r in rollouts])
    mean("near_copy_rate", [float(r["new_content"] == 0) for r in rollouts])
    mean("copied_run", [r["copied_run"] for r in scored])
    mean("idle_units", [r["idle_units"] for r in scored])
    if any(r["lexical"] for r in scored):  # a warning in every step: these rewards can be gamed
        mean("lexical_share", [r["lexical"] for r in scored])
    mean("rewrite_length", [r["length"] for r in rollouts])
    return metrics
