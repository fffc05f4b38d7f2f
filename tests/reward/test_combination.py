"""Evidence and judgement into an outcome."""

import math

import pytest

from reward.records.outcome import Evidence, Findings, Gated, GateReason, Judgement, Scored
from reward.rewrite import formulas
from reward.rewrite.combination import check_text, combine, judge_term
from reward.settings.recipe import LengthSettings, RewardSettings
from tests.support.logged_rollouts import LEXICON, evidence, make_sample, pointwise

V1, V2, V3 = (RewardSettings(formula=formula) for formula in ("v1", "v2", "v3"))
BY_RANK = make_sample(11)
BY_QUALITY = BY_RANK.model_copy(update={"relevant_doc_ids": ()})
REWRITE = "钙片 用法用量"
FOUND, BASELINE_FOUND = evidence(1, 0.9), evidence(4, 0.6)


def pairwise(preference: float, intent: float = 5.0) -> Judgement:
    return Judgement(mode="pairwise", preference=preference, orders_agree=True, intent=intent)


def combined(settings, sample, rewrite, policy, baseline, judgement=None, plain=None):
    findings = Findings(baseline_rewrite="鱼油", policy=policy, baseline=baseline, plain=plain, judgement=judgement)
    return combine(settings, sample, rewrite, findings)


def reward(settings, sample=BY_RANK, judgement=None, rewrite=REWRITE, policy=FOUND, baseline=BASELINE_FOUND):
    outcome = combined(settings, sample, rewrite, policy, baseline, judgement)
    assert isinstance(outcome, Scored)
    return outcome


def test_v2_takes_ranks_where_relevant_passages_are_known_and_quality_elsewhere():
    assert reward(V2).reward == pytest.approx(1 - formulas.rank_value(4))
    # 0.6*0.9 + 0.4*0.8 = 0.86 against 0.6*0.6 + 0.4*0.5 = 0.56
    assert reward(V2, BY_QUALITY).reward == pytest.approx(math.tanh(3 * 0.3))


def test_v2_weighs_retrieval_and_judge():
    scored = reward(V2, judgement=pointwise(5, 4))
    retrieval, judge = 1 - formulas.rank_value(4), math.tanh(2 * 0.2)
    assert scored.reward == pytest.approx(0.6 * retrieval + 0.4 * judge)
    assert (scored.parts.weight_retrieval, scored.parts.weight_judge) == pytest.approx((0.6, 0.4))
    assert (scored.parts.retrieval, scored.parts.judge) == pytest.approx((retrieval, judge))


def test_without_a_judge_the_weights_are_renormalised():
    parts = reward(V2).parts
    assert (parts.judge, parts.weight_retrieval, parts.weight_judge) == (None, 1.0, 0.0)


@pytest.mark.parametrize("preference", [-1.0, 0.0, 1.0])
def test_v2_takes_a_preference_as_it_is(preference):
    assert reward(V2, judgement=pairwise(preference)).parts.judge == preference


def test_v1_is_the_formula_of_the_draft():
    # quality 0.5*0.9 + 0.3*0.8 + 0.2*0.2 = 0.73 and 0.5*0.6 + 0.3*0.5 + 0.2*0.2 = 0.49
    retrieval, judge = math.tanh(3 * 0.24), math.tanh(2 * 0.2)
    scored = reward(V1, judgement=pointwise(5, 4))
    assert scored.parts.bonus == 0.5
    assert scored.reward == pytest.approx(0.40 * judge + 0.35 * retrieval + 0.25 * 0.5)
    assert scored.parts.shaping == 1.0


def test_v1_refuses_a_judgement_without_scores():
    with pytest.raises(ValueError, match="pairwise judgement without scores"):
        combined(V1, BY_RANK, REWRITE, evidence(1), evidence(2), pairwise(1.0))


@pytest.mark.parametrize("judgement", [pointwise(4, 4, intent=2), pairwise(1.0, intent=1)])
def test_lost_intent_closes_the_gate_of_v2(judgement):
    outcome = combined(V2, BY_RANK, REWRITE, evidence(1), evidence(2), judgement)
    assert isinstance(outcome, Gated)
    assert (outcome.reward, outcome.reason) == (-1.0, GateReason.INTENT_LOST)


@pytest.mark.parametrize(("kept", "gated"), [(False, True), (True, False), (None, False)])
def test_facts_that_the_judge_misses_close_the_gate(kept, gated):
    judgement = pointwise(5, 3).model_copy(update={"facts_kept": kept})
    outcome = combined(V2, BY_RANK, REWRITE, evidence(1), evidence(2), judgement)
    assert isinstance(outcome, Gated) == gated
    assert not gated or outcome.reason == GateReason.FACTS_LOST


def test_lost_intent_is_scored_when_kept_by_a_hair_or_not_gated():
    assert reward(V2, judgement=pointwise(4, 4, intent=3)).reward > 0
    gates = tuple(gate for gate in GateReason if gate is not GateReason.INTENT_LOST)
    assert reward(RewardSettings(formula="v2", gates=gates), judgement=pointwise(4, 4, intent=1)).reward > 0
    assert isinstance(combined(V1, BY_RANK, REWRITE, evidence(1), evidence(2), pointwise(4, 4, intent=1)), Scored)


def test_length_beyond_the_target_costs():
    settings = RewardSettings(formula="v2", length=LengthSettings(target=5, penalty=0.02))
    assert reward(settings).parts.length_penalty == pytest.approx(0.02 * (len(REWRITE) - 5))


def test_a_copy_earns_nothing_unless_it_retrieves_best():
    query = BY_RANK.original_query
    assert reward(V2, rewrite=f" {query} ", policy=evidence(2)).reward == 0.0
    assert reward(V2, rewrite=query, policy=evidence(1)).reward > 0.0


def test_parts_tell_what_was_found():
    parts = reward(V2, policy=evidence(None, 0.4), baseline=Evidence()).parts
    assert (parts.policy_top1, parts.baseline_top1, parts.policy_rank, parts.baseline_rank) == (0.4, 0.0, None, None)


def test_text_gates_belong_to_v2():
    assert check_text(V1, LEXICON, BY_RANK, "") is None
    assert check_text(RewardSettings(gates=()), LEXICON, BY_RANK, "<think>") is None
    only_leaks = RewardSettings(gates=(GateReason.TEMPLATE_LEAK,), gate_floor=-0.5)
    empty = check_text(only_leaks, LEXICON, BY_RANK, "")
    assert empty is not None and (empty.reason, empty.reward) == (GateReason.EMPTY, -0.5)
    asked = make_sample(0)
    dropped = check_text(V2, LEXICON, asked, "鱼油 用法")
    assert dropped is not None and dropped.reason is GateReason.TERM_DROPPED


def test_judge_terms():
    assert judge_term(pointwise(5, 3)) == pytest.approx(math.tanh(0.8))
    assert judge_term(pairwise(-1.0)) == -1.0
