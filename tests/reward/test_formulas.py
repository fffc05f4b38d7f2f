"""Reward formulas against values worked out by hand from spec formulas (the working stands beside each case)."""

import math

import pytest

from reward.records.outcome import relevant_rank
from reward.records.sample import Hit
from reward.rewrite import formulas


def hits(*scores: float) -> list[Hit]:
    return [Hit(content="", reranker_score=score, doc_id=f"d{i}") for i, score in enumerate(scores)]


# 0.5*top1 + 0.3*mean(top3) + 0.2*gap, gap = 2*clip(s1 - s2, 0, 0.2)
@pytest.mark.parametrize(
    ("scores", "quality"),
    [
        ((), 0.0),
        ((0.8,), 0.5 * 0.8 + 0.3 * 0.8),  # one hit: no gap
        ((0.9, 0.8, 0.7), 0.45 + 0.3 * 0.8 + 0.2 * 0.2),  # gap 2*0.1
        ((0.9, 0.5, 0.4), 0.45 + 0.3 * 0.6 + 0.2 * 0.4),  # gap clipped: 2*0.2
        ((0.5, 0.9), 0.25 + 0.3 * 0.7),  # second above first: gap 0
        ((0.9, 0.8, 0.7, 0.1), 0.73),  # the fourth hit does not count
    ],
)
def test_quality_v1(scores, quality):
    assert formulas.quality_v1(hits(*scores)) == pytest.approx(quality, abs=1e-12)


def test_quality_v1_falls_back_to_score_but_not_in_the_gap():
    plain = [Hit(content="", score=0.9), Hit(content="", score=0.2)]
    assert formulas.quality_v1(plain) == pytest.approx(0.5 * 0.9 + 0.3 * 0.55)


def test_judge_and_retrieval_terms_v1():
    assert formulas.judge_term_v1(4.5, 4.0) == pytest.approx(math.tanh(0.2))
    # 0.8*0.9 - 0.8*0.5 = 0.32 -> tanh(0.96)
    assert formulas.retrieval_term_v1(hits(0.9), hits(0.5)) == pytest.approx(math.tanh(0.96))


@pytest.mark.parametrize(
    ("mean", "bonus"), [(0.31, 0.5), (0.3, 0.2), (0.11, 0.2), (0.1, 0.0), (-0.09, 0.0), (-0.1, -0.3), (-0.9, -0.3)]
)
def test_bonus_v1_steps(mean, bonus):
    assert formulas.bonus_v1(mean) == bonus


def test_reward_v1_with_a_judge():
    # m = (0.4 + 0.1)/2 = 0.25 -> bonus 0.2; 0.4*0.4 + 0.35*0.1 + 0.25*0.2 = 0.245
    assert formulas.reward_v1(0.1, 0.4).reward == pytest.approx(0.245)
    # m = -0.5 -> bonus -0.3; -0.2 - 0.175 - 0.075
    assert formulas.reward_v1(-0.5, -0.5).reward == pytest.approx(-0.45)


def test_reward_v1_without_a_judge_renormalises_and_says_so():
    scored = formulas.reward_v1(0.4, None)
    # (0.35*0.4 + 0.25*0.5) / 0.6
    assert scored.reward == pytest.approx(0.265 / 0.6)
    assert scored.parts.judge is None and scored.parts.weight_judge == 0.0
    assert scored.parts.weight_retrieval == pytest.approx(0.35 / 0.6)


@pytest.mark.parametrize(
    ("step", "base", "recent", "factor"),
    [
        (1, 0.9, 0.0, 1.5),
        (999, 0, 0, 1.5),
        (1000, 0.9, 0.0, 1.0),
        (4999, 0.9, 0, 1.0),
        (5000, 0.5, 0.29, 1.3),
        (5000, 0.5, 0.3, 1.0),
    ],
)
def test_shaping_factor(step, base, recent, factor):
    assert formulas.shaping_factor(step, base, recent) == factor


def test_shaping_clips():
    scored = formulas.shape(formulas.reward_v1(1.0, 1.0), 1.5)
    assert scored.reward == 1.0 and scored.parts.shaping == 1.5


def test_rank_value():
    assert formulas.rank_value(1) == 1.0
    assert formulas.rank_value(4) == pytest.approx(0.25 + 0.5 * (1 - math.log(4) / math.log(101)))
    assert formulas.rank_value(101) == formulas.rank_value(None) == 0.0
    assert all(formulas.rank_value(r) > formulas.rank_value(r + 1) for r in range(1, 100))


def test_relevant_rank():
    assert relevant_rank(hits(0.9, 0.8, 0.7), ["d2", "d1"]) == 2
    assert relevant_rank(hits(0.9), ["x"]) is None


def v2(**changes):
    values = dict(
        retrieval=0.5,
        judge=None,
        weight_retrieval=0.6,
        weight_judge=0.4,
        excess_length=0,
        length_penalty=0.02,
        is_copy=False,
        retrieves_best=False,
    )
    return formulas.reward_v2(**{**values, **changes})


def test_reward_v2():
    assert v2(judge=1.0).reward == pytest.approx(0.6 * 0.5 + 0.4 * 1.0)
    alone = v2()
    assert alone.reward == pytest.approx(0.5)
    assert (alone.parts.weight_retrieval, alone.parts.weight_judge) == (1.0, 0.0)
    assert v2(excess_length=5).reward == pytest.approx(0.4)
    assert v2(retrieval=-1.0, excess_length=50).reward == -1.0


def test_a_copy_earns_nothing_unless_it_retrieves_best():
    assert v2(is_copy=True).reward == 0.0
    assert v2(is_copy=True, retrieval=-0.3).reward == pytest.approx(-0.3)
    assert v2(is_copy=True, retrieves_best=True).reward == pytest.approx(0.5)
