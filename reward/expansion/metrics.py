"""What the trainer logs of query expansion: the parts of a rollout's reward, and a step's metrics. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward.expansion.parser import parse
from reward.records.expansion import KINDS
from reward.records.outcome import Parts, Rollout, Scored


def rollout_fields(rollout: Rollout) -> dict[str, float]:
    """Return the parts of a rollout's reward as flat numbers; an absent number is 0, and `retrieved` says which."""
    outcome = rollout.outcome
    parts = outcome.parts if isinstance(outcome, Scored) else Parts()
    own, expansion = parts.expansion, parse(rollout.completion)
    gain = own.gain if own is not None else None
    return {
        "valid": float(expansion.is_valid),
        "rules": own.rules if own is not None else 0.0,
        "retrieved": float(gain is not None),
        "retrieval": gain or 0.0,
        "paid": (own.paid if own is not None else None) or 0.0,
        "win": float((gain or 0.0) > 0),
        "loss": float((gain or 0.0) < 0),
        "unsearched": float(len(own.unsearched) if own is not None else 0),
        "recital_penalty": parts.recital_penalty,
        "copied_run": float(parts.copied_run),
        "policy_top1": parts.policy_top1 or 0.0,
        "policy_rank": float(parts.policy_rank or 0),
        "plain_rank": float(parts.plain_rank or 0),
        **{f"{kind}_lines": float(len(expansion.of(kind))) for kind in KINDS},
        "length": float(len(rollout.completion.strip())),
    }


def step_metrics(rollouts: Sequence[Mapping[str, Any]], policy_label: str) -> dict[str, float]:
    """Return a step's metrics: `valid_share` of all rollouts; rules, gain and wins over the plain query of the scored.

    `<policy>_win_rate` counts a gated expansion as lost. A metric without any observation is left out.
    """
    metrics: dict[str, float] = {}

    def mean(name: str, values: Sequence[float]) -> None:
        if values:
            metrics[name] = sum(values) / len(values)

    answered = [r for r in rollouts if not r["abstained"]]
    scored = [r for r in answered if not r["gated"]]
    retrieved = [r for r in scored if r["retrieved"]]
    mean("valid_share", [r["valid"] for r in rollouts])
    mean("reward_rules", [r["rules"] for r in scored])
    mean("reward_retrieval", [r["retrieval"] for r in retrieved])
    mean("recited", [float(r["paid"] != r["retrieval"]) for r in retrieved])
    mean("unsearched_kinds", [r["unsearched"] for r in retrieved])

    # Who won: the lines against the plain query.
    if retrieved:
        gated = len(answered) - len(scored)
        wins, losses = sum(r["win"] for r in retrieved), sum(r["loss"] for r in retrieved) + gated
        metrics[f"{policy_label}_win_rate"] = wins / (len(retrieved) + gated)
        if wins + losses:
            metrics[f"{policy_label}_win_rate_decided"] = wins / (wins + losses)
        mean(f"{policy_label}_avg_top1", [r["policy_top1"] for r in retrieved])

    # What the text looks like.
    for kind in KINDS:
        mean(f"{kind}_lines", [r[f"{kind}_lines"] for r in scored])
    mean("rewrite_length", [r["length"] for r in rollouts])
    return metrics
