"""The reward of an expansion out of rule score and retrieval gain. Pure."""

from __future__ import annotations

from reward.records.expansion import ExpansionParts
from reward.records.outcome import Evidence, Parts, Scored
from reward.rewrite.formulas import quality_term_v2, rank_term_v2


def retrieval_gain(policy: Evidence, plain: Evidence, *, is_judged: bool) -> float:
    """Return what the typed lines gain over the plain query, in [-1, 1].

    Args:
        is_judged: relevant passages are known. Then it is phi(rank with the lines) - phi(rank without), else
            tanh(3 * difference) of the reranker's scores (`reward.rewrite.formulas`).
    """
    if is_judged:
        return rank_term_v2(policy.rank, plain.rank)
    return quality_term_v2(policy.top_hits, plain.top_hits)


def reward_v1(rules: float, points: dict[str, float]) -> Scored:
    """Return the rule score as the reward, in [0, 1]."""
    return Scored(reward=rules, parts=Parts(expansion=ExpansionParts(rules=rules, points=points)))


def reward_v2(
    rules: float,
    points: dict[str, float],
    policy: Evidence,
    plain: Evidence,
    *,
    is_judged: bool,
    weight_retrieval: float,
    recited: int,
    recital_penalty: float,
) -> Scored:
    """Return clip((1 - w)*rules + w*paid - penalty, -1, 1), w the weight of retrieval.

    `paid` is the gain. Where the lines recite a passage it is at most 0, and each unit recited costs `recital_penalty`.

    Example: rules .9, the passage moves from rank 7 to rank 1 (phi .44 to 1), w .6: .4*.9 + .6*.56 = .70.

    Args:
        recited: units recited from a hit beyond those that are free, at least 0.
    """
    gain = retrieval_gain(policy, plain, is_judged=is_judged)
    paid = min(gain, 0.0) if recited else gain
    penalty = recital_penalty * recited
    reward = (1 - weight_retrieval) * rules + weight_retrieval * paid - penalty
    parts = Parts(
        retrieval=gain,
        recital_penalty=penalty,
        weight_retrieval=weight_retrieval,
        policy_top1=policy.top1,
        policy_rank=policy.rank,
        plain_rank=plain.rank,
        versus_baseline=gain,
        copied_run=policy.copied_run,
        expansion=ExpansionParts(rules=rules, points=points, gain=gain, paid=paid, unsearched=policy.unsearched),
    )
    return Scored(reward=min(max(reward, -1.0), 1.0), parts=parts)
