"""Reward formulas as pure functions: the preset `v1` (docs/contracts.md) `v2`, and the default `v3`.

All score a rewrite against the baseline's rewrite of the same prompt; `v3` against the plain query too. A term that is
absent (no judge configured) is `None`: the remaining weights are renormalised and reported in the parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reward.records.outcome import Parts, Scored
from reward.records.sample import Hit

V1_JUDGE, V1_RETRIEVAL, V1_BONUS = 0.40, 0.35, 0.25
DEEPEST_RANK = 100


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _shares(judge: float | None, weight_retrieval: float, weight_judge: float) -> tuple[float, float]:
    """Return the weights of retrieval and judge, scaled to sum to 1 over the terms that are there."""
    if judge is None:
        return 1.0, 0.0
    total = weight_retrieval + weight_judge
    return weight_retrieval / total, weight_judge / total


def judge_term_v1(policy_score: float, baseline_score: float) -> float:
    """tanh(2 * (S8/5 - S32/5)) of the two overall judge scores, each in [1, 5]."""
    return math.tanh(2 * (policy_score / 5 - baseline_score / 5))


def quality_v1(hits: Sequence[Hit]) -> float:
    """0.5*top1 + 0.3*mean(top3) + 0.2*gap of hits in the service's order; 0 for no hits.

    A hit's score is `reranker_score`, else `score`. gap = 2*clip(s1 - s2, 0, 0.2) over `reranker_score` alone (missing
    counts as 0), 0 with fewer than two hits.
    """
    if not hits:
        return 0.0
    top = [hit.relevance for hit in hits[:3]]
    gap = 0.0
    if len(hits) >= 2:
        first, second = (hit.reranker_score or 0.0 for hit in hits[:2])
        gap = 2 * _clip(first - second, 0.0, 0.2)
    return 0.5 * top[0] + 0.3 * (sum(top) / len(top)) + 0.2 * gap


def retrieval_term_v1(policy_hits: Sequence[Hit], baseline_hits: Sequence[Hit]) -> float:
    """tanh(3 * (quality8 - quality32))."""
    return math.tanh(3 * (quality_v1(policy_hits) - quality_v1(baseline_hits)))


def bonus_v1(mean_term: float) -> float:
    """+0.5 above 0.3, +0.2 above 0.1, 0 above -0.1, else -0.3."""
    if mean_term > 0.3:
        return 0.5
    if mean_term > 0.1:
        return 0.2
    return 0.0 if mean_term > -0.1 else -0.3


def reward_v1(retrieval: float, judge: float | None) -> Scored:
    """clip(0.40*judge + 0.35*retrieval + 0.25*bonus(m), -1, 1), m the mean of the two terms.

    Without a judge m is the retrieval term and the weights of the two remaining parts are scaled to sum to 1.
    """
    if judge is None:
        rest = V1_RETRIEVAL + V1_BONUS
        bonus = bonus_v1(retrieval)
        reward = _clip((V1_RETRIEVAL * retrieval + V1_BONUS * bonus) / rest, -1.0, 1.0)
        parts = Parts(retrieval=retrieval, bonus=bonus, weight_retrieval=V1_RETRIEVAL / rest)
        return Scored(reward=reward, parts=parts)
    bonus = bonus_v1((judge + retrieval) / 2)
    reward = _clip(V1_JUDGE * judge + V1_RETRIEVAL * retrieval + V1_BONUS * bonus, -1.0, 1.0)
    parts = Parts(retrieval=retrieval, judge=judge, bonus=bonus, weight_retrieval=V1_RETRIEVAL, weight_judge=V1_JUDGE)
    return Scored(reward=reward, parts=parts)


def shaping_factor(step: int, base_reward: float, recent_mean: float) -> float:
    """Return the factor of adaptive shaping: x1.5 below step 1000, x1 below 5000, then x1.3 for a base reward more than
    0.2 above the mean of the last ones, else x1.

    Args:
        step: the trainer's, from 1.
        recent_mean: of the last 100 base rewards, this one included.
    """
    if step < 1000:
        return 1.5
    if step < 5000:
        return 1.0
    return 1.3 if base_reward - recent_mean > 0.2 else 1.0


def shape(scored: Scored, factor: float) -> Scored:
    """The scored reward times `factor`, clipped to [-1, 1]; the factor is kept in the parts."""
    return Scored(
        reward=_clip(scored.reward * factor, -1.0, 1.0), parts=scored.parts.model_copy(update={"shaping": factor})
    )


def rank_value(rank: int | None) -> float:
    """phi(r) = 1/2 / sqrt(r) + 1/2 * (1 - ln r / ln 101), 0 beyond rank 100: smooth, so that "almost" still teaches."""
    if rank is None or rank > DEEPEST_RANK:
        return 0.0
    return 0.5 / math.sqrt(rank) + 0.5 * (1 - math.log(rank) / math.log(DEEPEST_RANK + 1))


def quality_v2(hits: Sequence[Hit]) -> float:
    """0.6*top1 + 0.4*mean(top3) of the frozen reranker's scores; 0 for no hits. No gap term: it rewarded worse second
    hits."""
    if not hits:
        return 0.0
    top = [hit.relevance for hit in hits[:3]]
    return 0.6 * top[0] + 0.4 * sum(top) / len(top)


def quality_term_v2(policy_hits: Sequence[Hit], baseline_hits: Sequence[Hit]) -> float:
    """tanh(3 * difference of `quality_v2`): the retrieval term when no relevant passage is known."""
    return math.tanh(3 * (quality_v2(policy_hits) - quality_v2(baseline_hits)))


def rank_term_v2(policy_rank: int | None, baseline_rank: int | None) -> float:
    """phi(policy's rank) - phi(baseline's rank), in [-1, 1]: the retrieval term when relevant passages are known."""
    return rank_value(policy_rank) - rank_value(baseline_rank)


def reward_v2(
    retrieval: float,
    judge: float | None,
    *,
    weight_retrieval: float,
    weight_judge: float,
    excess_length: int,
    length_penalty: float,
    is_copy: bool,
    retrieves_best: bool,
) -> Scored:
    """clip(w_r*retrieval + w_j*judge - length_penalty*excess_length, -1, 1) with w_r + w_j = 1 over the present terms.

    Args:
        excess_length: characters beyond the target length, at least 0.
        is_copy: the rewrite equals the original query: it earns at most 0 unless `retrieves_best`.
        retrieves_best: the rewrite is known to put a relevant passage first.
    """
    share_retrieval, share_judge = _shares(judge, weight_retrieval, weight_judge)
    penalty = length_penalty * excess_length
    reward = _clip(share_retrieval * retrieval + share_judge * (judge or 0.0) - penalty, -1.0, 1.0)
    if is_copy and not retrieves_best:
        reward = min(reward, 0.0)
    parts = Parts(
        retrieval=retrieval,
        judge=judge,
        length_penalty=penalty,
        weight_retrieval=share_retrieval,
        weight_judge=share_judge,
    )
    return Scored(reward=reward, parts=parts)


def rank_gain_v3(policy_rank: int | None, baseline_rank: int | None, plain_rank: int | None) -> float:
    """Return phi(policy's rank) - max(phi(baseline's), phi(plain query's)), in [-1, 1]: what is gained beyond both."""
    return rank_value(policy_rank) - max(rank_value(baseline_rank), rank_value(plain_rank))


def quality_gain_v3(policy: Sequence[Hit], baseline: Sequence[Hit], plain: Sequence[Hit]) -> float:
    """Return tanh(3 * (quality - the better of the other two)) of `quality_v2`, where no relevant passage is known."""
    return math.tanh(3 * (quality_v2(policy) - max(quality_v2(baseline), quality_v2(plain))))


def reward_v3(
    gain: float,
    judge: float | None,
    *,
    weight_retrieval: float,
    weight_judge: float,
    excess_length: int,
    length_penalty: float,
    recited: int,
    recital_penalty: float,
    idle: int,
    idle_penalty: float,
    is_near_copy: bool,
    plain_is_best: bool,
) -> Scored:
    """Return clip(w_r*gain + w_j*judge - penalties, -1, 1) with w_r + w_j = 1 over the present terms.

    Args:
        gain: retrieval beyond the better of the baseline's and the plain query's hits.
        excess_length: characters beyond the target length, at least 0.
        recited: units recited from a hit beyond those that are free, at least 0. Retrieval that rests on a recital
            earns at most 0.
        idle: units of the rewrite that are in neither the query, its context nor the passage that pays, at least 0.
            They take from a gain, down to 0; where nothing is gained they cost nothing.
        is_near_copy: the rewrite adds nothing to the query: it earns at most 0 unless `plain_is_best`.
        plain_is_best: the plain query is known to put a relevant passage first.
    """
    share_retrieval, share_judge = _shares(judge, weight_retrieval, weight_judge)
    idle_cost = min(idle_penalty * idle, max(gain, 0.0))
    earned = min(gain, 0.0) if recited else gain - idle_cost
    too_long, recital = length_penalty * excess_length, recital_penalty * recited
    reward = _clip(share_retrieval * earned + share_judge * (judge or 0.0) - too_long - recital, -1.0, 1.0)
    if is_near_copy and not plain_is_best:
        reward = min(reward, 0.0)
    parts = Parts(
        retrieval=gain,
        judge=judge,
        length_penalty=too_long,
        recital_penalty=recital,
        idle_penalty=idle_cost,
        weight_retrieval=share_retrieval,
        weight_judge=share_judge,
    )
    return Scored(reward=reward, parts=parts)
