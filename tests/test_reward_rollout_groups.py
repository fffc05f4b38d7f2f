"""Which rollouts train, what a step logs, and when the breaker trips."""

import pytest

from reward.records import Abstained, AbstainReason, Gated, GateReason, Parts, Scored
from reward.rollout_groups import AbstentionBreaker, step_metrics, trainable
from reward.scorer import Scoring
from reward.settings import BreakerSettings
from reward.verl_reward import flat_fields

SCORED = Scoring(
    Scored(reward=0.4, parts=Parts(retrieval=0.4, policy_top1=0.9, baseline_top1=0.7, weight_retrieval=1)), 2, 1
)
LOST = Scoring(
    Scored(reward=-0.2, parts=Parts(retrieval=-0.2, policy_top1=0.5, baseline_top1=0.7, weight_retrieval=1)), 2, 0
)
TIED = Scoring(
    Scored(reward=0.0, parts=Parts(retrieval=0.0, policy_top1=0.7, baseline_top1=0.7, weight_retrieval=1)), 2, 2
)
GATED = Scoring(Gated(reward=-1.0, reason=GateReason.EMPTY), 0, 0)
ABSTAINED = Scoring(Abstained(reason=AbstainReason.RAG, detail="HTTP 503 after 3 tries"), 2, 0)


@pytest.mark.parametrize(
    ("groups", "abstained", "size", "kept"),
    [
        ("aaaa", "0000", 4, "1111"),
        ("aaaa", "0011", 4, "1100"),  # half is enough
        ("aaaa", "0111", 4, "0000"),  # a lone survivor never trains
        ("aaabbb", "001000", 4, "110111"),  # the trainer lost one of each group itself
        ("ab", "01", 4, "00"),
        ("aab", "010", 2, "000"),  # groups of two: a lone survivor is no half
        ("abc", "010", 1, "101"),  # PPO with a critic: every rollout stands alone
    ],
)
def test_trainable(groups, abstained, size, kept):
    assert trainable(groups, [flag == "1" for flag in abstained], size) == [flag == "1" for flag in kept]


def test_every_outcome_reports_the_same_keys():
    keys = [set(flat_fields(scoring)) for scoring in (SCORED, GATED, ABSTAINED)]
    assert keys[0] == keys[1] == keys[2]
    assert "reward" not in keys[0]
    assert all(isinstance(v, (float, str)) for v in flat_fields(ABSTAINED).values())


def test_step_metrics():
    rollouts = [flat_fields(s) for s in (SCORED, LOST, TIED, GATED, ABSTAINED)]
    metrics = step_metrics(rollouts, [True, True, True, True, False], policy_label="8b", baseline_label="32b")
    assert metrics["avg_reward"] == pytest.approx((0.4 - 0.2 + 0.0 - 1.0) / 4)  # the abstention is no zero
    assert metrics["8b_win_rate"] == pytest.approx(1 / 3)  # a win, a loss, and a gated rewrite that lost
    assert metrics["8b_avg_top1"] == pytest.approx(0.7)
    assert metrics["32b_avg_top1"] == pytest.approx(0.7)
    assert metrics["rag_api_calls"] == 5 and metrics["cache_hit_rate"] == pytest.approx(3 / 8)
    assert metrics["abstained"] == metrics["gated"] == pytest.approx(0.2)
    assert metrics["abstained/rag_failed"] == metrics["gated/empty"] == pytest.approx(0.2)
    assert metrics["dropped_from_training"] == 1
    assert metrics["weight_judge"] == 0.0 and metrics["weight_retrieval"] == 1.0


def test_a_step_without_a_scored_rollout_invents_no_figure():
    metrics = step_metrics([flat_fields(ABSTAINED)], [False], policy_label="8b", baseline_label="32b")
    assert "avg_reward" not in metrics and "8b_win_rate" not in metrics and metrics["abstained"] == 1.0


def test_breaker():
    breaker = AbstentionBreaker(BreakerSettings(max_abstained=0.25, window=8))
    assert not breaker.tripped
    breaker.record([True] * 2)  # all of the first step, but not yet more than a quarter of a window
    assert breaker.share == 1.0 and not breaker.tripped
    breaker.record([False] * 6)
    assert breaker.share == 0.25 and not breaker.tripped
    breaker.record([True] * 3)
    assert breaker.tripped
    breaker.record([False] * 8)
    assert not breaker.tripped
