"""Formula v3: only what is gained beyond baseline and plain query pays, and only where it can be measured."""

import math

import pytest

from reward.records.outcome import Abstained, Evidence, Findings, Scored
from reward.records.sample import Context, Hit
from reward.rewrite import formulas
from reward.rewrite.combination import combine
from reward.services.tenant_services import evidence_of
from reward.settings.recipe import RewardSettings
from reward.task import make_task
from reward.text.terms import NO_TERMS
from tests.support.logged_rollouts import evidence, make_sample, pointwise

V3 = RewardSettings(formula="v3")
BY_RANK = make_sample(11).model_copy(update={"original_query": "钙片要怎么吃才对呢"})
BY_QUALITY = BY_RANK.model_copy(update={"relevant_doc_ids": ()})
HONEST = "钙片 用法用量"


def found(policy, baseline, plain, judgement=None) -> Findings:
    return Findings(baseline_rewrite="钙片", policy=policy, baseline=baseline, plain=plain, judgement=judgement)


def judged_by(origin: str, *scores: float, rank: int | None = None, copied_run: int = 0) -> Evidence:
    hits = tuple(Hit(content="", reranker_score=score, doc_id=f"d{i}") for i, score in enumerate(scores))
    return Evidence(top_hits=hits, rank=rank, origin=origin, copied_run=copied_run)


def reward(findings, sample=BY_RANK, rewrite=HONEST, settings=V3) -> float:
    outcome = combine(settings, sample, rewrite, findings)
    assert isinstance(outcome, Scored)
    return outcome.reward


@pytest.mark.parametrize(("baseline", "plain", "best"), [(4, 9, 4), (9, 4, 4), (None, 4, 4), (4, None, 4), (2, 1, 1)])
def test_only_what_is_gained_beyond_the_better_of_the_two_pays(baseline, plain, best):
    gained = reward(found(evidence(1), evidence(baseline), evidence(plain)))
    assert gained == pytest.approx(1 - formulas.rank_value(best))


def test_without_known_passages_the_same_holds_for_quality():
    policy, baseline, plain = (judged_by("bge", score, score, score) for score in (0.9, 0.5, 0.7))
    assert reward(found(policy, baseline, plain), BY_QUALITY) == pytest.approx(math.tanh(3 * 0.2))


@pytest.mark.parametrize("rewrite", ["钙片要怎么吃才对呢？", "请问钙片要怎么吃才对呢", "钙片吃要", "钙片钙片"])
@pytest.mark.parametrize("judgement", [None, pointwise(5, 3)])
def test_a_near_copy_earns_nothing(rewrite, judgement):
    assert reward(found(evidence(1), evidence(9), evidence(2), judgement), rewrite=rewrite) == 0


def test_a_near_copy_is_paid_where_the_plain_query_retrieves_best():
    judgement = pointwise(5, 3)
    assert reward(found(evidence(1), evidence(9), evidence(1), judgement), rewrite="钙片要怎么吃才对") > 0


def test_a_recital_earns_nothing_and_costs():
    honest = evidence(1)
    recited = honest.model_copy(update={"copied_run": V3.recital.free + 4})
    assert reward(found(recited, evidence(9), evidence(9))) == pytest.approx(-4 * V3.recital.penalty)
    at_the_limit = honest.model_copy(update={"copied_run": V3.recital.free})
    assert reward(found(at_the_limit, evidence(9), evidence(9))) > 0


def test_idle_words_take_from_a_gain_and_from_nothing_else():
    idle = evidence(1).model_copy(update={"idle_units": 3})
    assert reward(found(idle, evidence(9), evidence(9))) == pytest.approx(
        reward(found(evidence(1), evidence(9), evidence(9))) - 3 * V3.idle_penalty
    )
    many = evidence(1).model_copy(update={"idle_units": 10_000})
    assert reward(found(many, evidence(9), evidence(9))) == 0
    lost = evidence(9).model_copy(update={"idle_units": 3})
    assert reward(found(lost, evidence(1), evidence(1))) == reward(found(evidence(9), evidence(1), evidence(1)))


def test_idle_words_are_counted_against_the_passage_that_pays():
    hits = [Hit(content="钙片 价格", doc_id="d0", score=0.9), Hit(content="钙片 服用 方法", doc_id="d1", score=0.8)]
    assert evidence_of(hits, ("d1",), "钙片 服用 方法", "钙片", "bge").idle_units == 0
    assert evidence_of(hits, ("d0",), "钙片 服用 方法", "钙片", "bge").idle_units == 4
    assert evidence_of(hits, ("d2",), "钙片 服用 方法", "钙片", "bge").idle_units == 4
    assert evidence_of(hits, (), "钙片 服用 价格", "钙片", "bge").idle_units == 0


@pytest.mark.parametrize(
    ("findings", "sample", "why"),
    [
        (found(judged_by("bge", 0.9), judged_by("fused", 0.5), judged_by("bge", 0.5)), BY_QUALITY, "different origin"),
        (found(*[judged_by("lexical-coverage-v1", 0.9)] * 3), BY_QUALITY, "accept_lexical"),
        (found(*[judged_by("fused", 0.9)] * 3), BY_QUALITY, "accept_lexical"),
        (
            found(*[Evidence(top_hits=(Hit(content="", doc_id="d"),), lacks_scores=True)] * 3),
            BY_QUALITY,
            "without any score",
        ),
        (found(*[Evidence(top_hits=(Hit(content="", score=0.4),), lacks_ids=True)] * 3), BY_RANK, "without doc_id"),
    ],
)
def test_what_cannot_be_compared_abstains(findings, sample, why):
    outcome = combine(V3, sample, HONEST, findings)
    assert isinstance(outcome, Abstained) and why in outcome.detail


def test_a_retrieval_that_finds_nothing_is_comparable_with_any_origin():
    nothing, something = Evidence(), judged_by("bge", 0.6, 0.6, 0.6)
    assert reward(found(something, nothing, something), BY_QUALITY) == 0
    assert reward(found(nothing, something, nothing), BY_QUALITY) == pytest.approx(math.tanh(-3 * 0.6))


def test_lexical_scores_are_taken_when_accepted_and_marked():
    settings = RewardSettings(formula="v3", accept_lexical=True)
    lexical = [judged_by("lexical-coverage-v1", score, score, score) for score in (0.9, 0.5, 0.5)]
    outcome = combine(settings, BY_QUALITY, HONEST, found(*lexical))
    assert isinstance(outcome, Scored) and outcome.reward > 0 and outcome.parts.lexical == 1
    by_rank = combine(settings, BY_RANK, HONEST, found(evidence(1), evidence(2), evidence(3)))
    assert isinstance(by_rank, Scored) and by_rank.parts.lexical == 0


def test_who_won_is_told_by_the_baseline_alone():
    outcome = combine(V3, BY_RANK, HONEST, found(evidence(2), evidence(5), evidence(1)))
    assert isinstance(outcome, Scored)
    assert outcome.reward < 0 < outcome.parts.versus_baseline


def test_the_plain_query_is_asked_for_once_everything_rests_on_the_baseline():
    task = make_task("rewrite", V3, lambda sample: NO_TERMS, has_judge=False)
    assert list(task.requests(BY_RANK, HONEST, Findings())) == ["baseline_rewrite"]
    assert list(task.requests(BY_RANK, HONEST, Findings(baseline_rewrite="钙片"))) == ["policy", "baseline", "plain"]
    assert not task.requests(BY_RANK, HONEST, found(evidence(1), evidence(1), evidence(1)))


def test_evidence_keeps_how_much_of_a_passage_is_recited():
    sample = BY_RANK.model_copy(update={"context": Context(history_context="用户: 餐后服用")})
    hit = Hit(content="钙片宜餐后服用，一日两次，每次一片，睡前为佳。", reranker_score=0.9, doc_id="d1")
    known = f"{sample.original_query}\n{sample.context.text}"
    recital = evidence_of([hit], ("d1",), "钙片 宜餐后服用，一日两次，每次一片", known, "bge")
    assert (recital.copied_run, recital.rank, recital.origin) == (8, 1, "bge")  # 片 is known
    assert recital.top_hits[0].content == ""
    assert evidence_of([hit], (), HONEST, known, "bge").copied_run == 0
