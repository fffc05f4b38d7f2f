"""Evidence and judgement into an outcome: pure, so that a run's log can be scored again under other settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reward.records.call import FailureKind
from reward.records.outcome import (
    Abstained,
    AbstainReason,
    Evidence,
    Findings,
    Gated,
    GateReason,
    Judgement,
    Parts,
    Scored,
    why_unusable,
)
from reward.records.sample import Sample
from reward.rewrite import formulas
from reward.rewrite.gates import check_gates
from reward.settings.recipe import RewardSettings
from reward.text.fold import is_same_text
from reward.text.terms import Lexicon
from reward.text.units import new_content

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


def combine(settings: RewardSettings, sample: Sample, rewrite: str, findings: Findings) -> Scored | Gated | Abstained:
    """Return the outcome of a rewrite that passed the text gates, before any shaping by step.

    Without a judgement its weight goes to the terms that are there. Hits that cannot be compared (`unusable`) abstain.

    Args:
        rewrite: the policy's, stripped.
        findings: what the calls about it found.

    Raises:
        ValueError: formula `v1` with a pairwise judgement, which holds no scores; only the judge has a weight, and
            there is no judgement; or a retrieval is missing.
    """
    policy, baseline, judgement = findings.policy, findings.baseline, findings.judgement
    if policy is None or baseline is None:
        raise ValueError("a retrieval is missing")
    compared = [evidence for evidence in (policy, baseline, findings.plain) if evidence is not None]
    if (why := unusable(settings, sample, compared)) is not None:
        return Abstained(reason=AbstainReason.RAG, failure=FailureKind.MALFORMED, detail=why)
    if settings.formula == "v1":
        scored = formulas.reward_v1(
            formulas.retrieval_term_v1(policy.top_hits, baseline.top_hits),
            judge=None if judgement is None else _score_term(judgement),
        )
        return _with_evidence(scored, findings, versus_baseline=_weighed(scored.parts, scored.parts.retrieval))
    if judgement is None and settings.weight_retrieval == 0:
        raise ValueError("only the judge has a weight, and there is no judgement")
    if judgement is not None and (gated := _gated_by(judgement, settings)) is not None:
        return gated

    # Retrieval against the baseline alone: formula v2's term, and who won under v3.
    judge = None if judgement is None else judge_term(judgement)
    if sample.relevant_doc_ids:
        margin = formulas.rank_term_v2(policy.rank, baseline.rank)
    else:
        margin = formulas.quality_term_v2(policy.top_hits, baseline.top_hits)
    excess_length = max(0, len(rewrite) - settings.length.target)
    if settings.formula == "v2":
        scored = formulas.reward_v2(
            margin,
            judge,
            weight_retrieval=settings.weight_retrieval,
            weight_judge=settings.weight_judge,
            excess_length=excess_length,
            length_penalty=settings.length.penalty,
            is_copy=is_same_text(rewrite, sample.original_query),
            retrieves_best=policy.rank == 1,
        )
        return _with_evidence(scored, findings, versus_baseline=_weighed(scored.parts, margin))

    # Formula v3 pays what is gained beyond the better of baseline and plain query.
    plain = findings.plain
    if plain is None:
        raise ValueError("the plain query's retrieval is missing")
    if sample.relevant_doc_ids:
        gain = formulas.rank_gain_v3(policy.rank, baseline.rank, plain.rank)
    else:
        gain = formulas.quality_gain_v3(policy.top_hits, baseline.top_hits, plain.top_hits)
    content = new_content(rewrite, sample.original_query)
    scored = formulas.reward_v3(
        gain,
        judge,
        weight_retrieval=settings.weight_retrieval,
        weight_judge=settings.weight_judge,
        excess_length=excess_length,
        length_penalty=settings.length.penalty,
        recited=max(0, policy.copied_run - settings.recital.free),
        recital_penalty=settings.recital.penalty,
        idle=policy.idle_units,
        idle_penalty=settings.idle_penalty,
        is_near_copy=content <= settings.near_copy,
        plain_is_best=plain.rank == 1,
    )
    lexical = not sample.relevant_doc_ids and any(is_lexical(evidence.origin) for evidence in compared)
    return _with_evidence(
        scored,
        findings,
        versus_baseline=_weighed(scored.parts, margin),
        plain_rank=plain.rank,
        new_content=content,
        copied_run=policy.copied_run,
        idle_units=policy.idle_units,
        lexical=float(lexical),
    )


def _gated_by(judgement: Judgement, settings: RewardSettings) -> Gated | None:
    """The judge's gates: what no rule can see, a good style must not buy."""
    if judgement.intent <= INTENT_FLOOR and GateReason.INTENT_LOST in settings.gates:
        detail = f"意图保持 {judgement.intent:g}"
        return Gated(reward=settings.gate_floor, reason=GateReason.INTENT_LOST, detail=detail)
    if judgement.facts_kept is False and GateReason.FACTS_LOST in settings.gates:
        return Gated(reward=settings.gate_floor, reason=GateReason.FACTS_LOST, detail="事实一致 否")
    return None


def unusable(settings: RewardSettings, sample: Sample, retrievals: Sequence[Evidence]) -> str | None:
    """Return why these retrievals cannot be compared, or None.

    Ranks need ids. Scores need one origin for all and, under formula v3, a reranker that read the customer's query: the
    fused score of a search and lexical overlap rise by repeating the query.
    """
    judged = bool(sample.relevant_doc_ids)
    for evidence in retrievals:
        if why := why_unusable(evidence, needs_ids=judged, needs_scores=not judged):
            return why
    if judged or settings.formula == "v1":
        return None
    origins = sorted({evidence.origin for evidence in retrievals if evidence.top_hits})
    if len(origins) > 1:
        named = ", ".join(origin or "unknown" for origin in origins)
        return f"scores of different origin: {named}; after a change of reranker, change rewriter.tenant.rag.kb_version"
    if settings.formula == "v2":
        return None
    if origins and is_lexical(origins[0]) and not settings.accept_lexical:
        return f"scores are lexical ({origins[0]}): configure a reranker, or set rewriter.reward.accept_lexical=true"
    return None


def is_lexical(origin: str) -> bool:
    """Whether scores of this origin measure words in common: a lexical scorer's, or a search's own fused score."""
    return origin == "fused" or origin.startswith("lexical")


def _weighed(parts: Parts, retrieval: float | None) -> float:
    return parts.weight_retrieval * (retrieval or 0.0) + parts.weight_judge * (parts.judge or 0.0)


def _with_evidence(scored: Scored, findings: Findings, **found: Any) -> Scored:
    """The scored outcome with the ranks and scores it rests on."""
    assert findings.policy is not None and findings.baseline is not None
    seen = {
        "policy_top1": findings.policy.top1,
        "baseline_top1": findings.baseline.top1,
        "policy_rank": findings.policy.rank,
        "baseline_rank": findings.baseline.rank,
    }
    return scored.model_copy(update={"parts": scored.parts.model_copy(update=seen | found)})


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
