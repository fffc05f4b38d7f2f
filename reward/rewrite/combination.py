"""Evidence and judgement into an outcome: pure, so that a run's log can be scored again under other settings."""

from __future__ import annotations

from typing import Any

from reward.records.outcome import Abstained, Evidence, Gated, GateReason, Judgement, Rollout, Scored
from reward.records.sample import Candidates, RetrievalResults, Sample
from reward.rewrite import formulas
from reward.rewrite.gates import check_gates
from reward.settings.recipe import RewardSettings
from reward.text.fold import is_same_text
from reward.text.terms import Lexicon

INTENT_FLOOR = 2  # a grade of 意图保持 at or below it: the rewrite asks for something else


def check_text(settings: RewardSettings, lexicon: Lexicon, sample: Sample, rewrite: str) -> Gated | None:
    """The text gates as `settings` have them; formula `v1` has none: an empty rewrite simply finds nothing."""
    if settings.formula == "v1" or not settings.gates:
        return None
    return check_gates(
        sample,
        rewrite,
        gates={*settings.gates, GateReason.EMPTY},
        cap=settings.length.cap,
        lexicon=lexicon,
        floor=settings.gate_floor,
        special_tokens=settings.special_tokens,
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


def canonical_sample(rollout: Rollout) -> Sample:
    """Return the rollout as the canonical RL record: the sample with candidates, results, evaluation and reward.

    Hits carry no content: the log keeps their scores and ids. `evaluation` holds `None` for what is not known: scores
    of a pairwise judgement, `recall_at_3` without relevant passages, all of it for an abstained rollout.
    `winner` is `qwen_8b`, `qwen_32b` or `tie`, by 综合得分, else by the pairwise preference.
    """
    judgement, rewrite = rollout.judgement, rollout.completion.strip()
    policy_score = judgement.policy_score if judgement else None
    baseline_score = judgement.baseline_score if judgement else None
    margin = None if policy_score is None or baseline_score is None else round(policy_score - baseline_score, 4)
    lead = margin if margin is not None else judgement.preference if judgement else None
    evaluation: dict[str, Any] = {
        "gpt5_scores": {"qwen_8b": policy_score, "qwen_32b": baseline_score},
        "retrieval_metrics": {
            "qwen_8b": _retrieval_metrics(rollout.policy, rollout.sample),
            "qwen_32b": _retrieval_metrics(rollout.baseline, rollout.sample),
        },
        "winner": None if lead is None else "tie" if lead == 0 else "qwen_8b" if lead > 0 else "qwen_32b",
        "margin": None if margin is None else abs(margin),
    }
    return rollout.sample.model_copy(
        update={
            "candidates": Candidates(policy=rewrite, baseline=rollout.baseline_rewrite),
            "retrieval_results": RetrievalResults(
                policy=rollout.policy.top_hits if rollout.policy else (),
                baseline=rollout.baseline.top_hits if rollout.baseline else (),
            ),
            "evaluation": evaluation,
            "reward": None if isinstance(rollout.outcome, Abstained) else rollout.outcome.reward,
        }
    )


def _retrieval_metrics(evidence: Evidence | None, sample: Sample) -> dict[str, float | None]:
    """Of the first three hits; `recall_at_3` is the share of the relevant passages among them."""
    if evidence is None:
        return {"top1_score": None, "avg_top3_score": None, "recall_at_3": None}
    scores = [hit.relevance for hit in evidence.top_hits]
    relevant = set(sample.relevant_doc_ids)
    found = relevant & {hit.doc_id for hit in evidence.top_hits}
    return {
        "top1_score": evidence.top1,
        "avg_top3_score": sum(scores) / len(scores) if scores else 0.0,
        "recall_at_3": len(found) / len(relevant) if relevant else None,
    }
