"""Evidence and judgement into an outcome: pure, so that a run's log can be scored again under other settings."""

from __future__ import annotations

from collections.abc import Sequence

from reward.records.outcome import Evidence, Gated, GateReason, Judgement, Scored
from reward.records.sample import Sample
from reward.rewrite import formulas
from reward.rewrite.gates import check_gates
from reward.settings.recipe import RewardSettings
from reward.text.fold import is_same_text

INTENT_FLOOR = 2  # a grade of 意图保持 at or below it: the rewrite asks for something else


def check_text(settings: RewardSettings, protected_terms: Sequence[str], sample: Sample, rewrite: str) -> Gated | None:
    """The text gates as `settings` have them; formula `v1` has none: an empty rewrite simply finds nothing."""
    if settings.formula == "v1" or not settings.gates:
        return None
    return check_gates(
        sample,
        rewrite,
        gates={*settings.gates, GateReason.EMPTY},
        cap=settings.length.cap,
        protected_terms=protected_terms,
        floor=settings.gate_floor,
    )


def combine(
    settings: RewardSettings,
    sample: Sample,
    rewrite: str,
    policy: Evidence,
    baseline: Evidence,
    judgement: Judgement | None,
) -> Scored | Gated:
    """The outcome of a rewrite that passed the text gates, before any shaping by step (`formulas.shape`).

    Args:
        rewrite: the policy's, stripped.
        policy, baseline: what the two rewrites retrieved for the same sample.
        judgement: `None` without a judge: its weight goes to the terms that are there.

    Raises:
        ValueError: formula `v1` with a pairwise judgement, which holds no scores; or only the judge has a weight, and
            there is no judgement.
    """
    if judgement is None and settings.weight_retrieval == 0 and settings.formula != "v1":
        raise ValueError("only the judge has a weight, and there is no judgement")
    if settings.formula == "v1":
        scored = formulas.reward_v1(
            formulas.retrieval_term_v1(policy.top_hits, baseline.top_hits),
            judge=None if judgement is None else _score_term(judgement),
        )
    else:
        if judgement is not None and judgement.intent <= INTENT_FLOOR and GateReason.INTENT_LOST in settings.gates:
            detail = f"意图保持 {judgement.intent:g}"
            return Gated(reward=settings.gate_floor, reason=GateReason.INTENT_LOST, detail=detail)
        if sample.relevant_doc_ids:
            retrieval = formulas.rank_term_v2(policy.rank, baseline.rank)
        else:
            retrieval = formulas.quality_term_v2(policy.top_hits, baseline.top_hits)
        scored = formulas.reward_v2(
            retrieval,
            judge=None if judgement is None else judge_term(judgement),
            weight_retrieval=settings.weight_retrieval,
            weight_judge=settings.weight_judge,
            excess_length=max(0, len(rewrite) - settings.length.target),
            length_penalty=settings.length.penalty,
            is_copy=is_same_text(rewrite, sample.original_query),
            retrieves_best=policy.rank == 1,
        )
    found = {
        "policy_top1": policy.top1,
        "baseline_top1": baseline.top1,
        "policy_rank": policy.rank,
        "baseline_rank": baseline.rank,
    }
    return scored.model_copy(update={"parts": scored.parts.model_copy(update=found)})


def judge_term(judgement: Judgement) -> float:
    """The judge's term in [-1, 1]: the preference of a pairwise judgement, else `formulas.judge_term_v1` of the scores.

    Raises:
        ValueError: the judgement holds neither.
    """
    return judgement.preference if judgement.preference is not None else _score_term(judgement)


def _score_term(judgement: Judgement) -> float:
    if judgement.policy_score is None or judgement.baseline_score is None:
        raise ValueError(f"a {judgement.mode} judgement without scores")
    return formulas.judge_term_v1(judgement.policy_score, judgement.baseline_score)
