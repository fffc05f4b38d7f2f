"""Which rollouts train, what a step logs, and when the breaker trips."""

import pytest

from reward.engine import flat_fields
from reward.records.call import Answer, CallKind, CallTrace, FailureKind
from reward.records.outcome import Abstained, AbstainReason, Gated, GateReason, Parts, Rollout, Scored
from reward.records.sample import Metadata, Sample
from reward.rollouts.groups import AbstentionBreaker, same_reward_share, step_metrics, trainable
from reward.scorer import Scoring
from reward.settings.recipe import BreakerSettings, RewardSettings
from reward.task import make_task
from reward.text.terms import NO_TERMS

TASK = make_task("rewrite", RewardSettings(), lambda sample: NO_TERMS, has_judge=False)


def scoring(outcome, *sources: str) -> Scoring:
    """A rollout whose retrievals were answered from `sources`."""
    sample = Sample(sample_id="t_1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"))
    rollout = Rollout(step=1, time=10.0, sample=sample, completion="鱼油 用法", outcome=outcome)
    answers = tuple(
        Answer(CallKind.RAG, {}, source, CallTrace(seconds=0.2, attempts=1) if source == "made" else CallTrace())
        for source in sources
    )
    return Scoring(rollout, answers, started=9.0, ended=10.0)


def scored(reward: float, policy_top1: float) -> Scored:
    parts = Parts(
        retrieval=reward, policy_top1=policy_top1, baseline_top1=0.7, weight_retrieval=1, versus_baseline=reward
    )
    return Scored(reward=reward, parts=parts)


SCORED = scoring(scored(0.4, 0.9), "made", "stored")
LOST = scoring(scored(-0.2, 0.5), "made", "made")
TIED = scoring(scored(0.0, 0.7), "joined", "stored")
GATED = scoring(Gated(reward=-1.0, reason=GateReason.EMPTY))
ABSTAINED = scoring(
    Abstained(reason=AbstainReason.RAG, failure=FailureKind.SERVER_ERROR, detail="HTTP 503 after 3 attempts"),
    "made",
    "made",
)


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
    keys = [set(flat_fields(scoring, TASK)) for scoring in (SCORED, GATED, ABSTAINED)]
    assert keys[0] == keys[1] == keys[2]
    assert "reward" not in keys[0]
    assert all(isinstance(v, (float, str)) for v in flat_fields(ABSTAINED, TASK).values())


def test_step_metrics():
    rollouts = [flat_fields(s, TASK) for s in (SCORED, LOST, TIED, GATED, ABSTAINED)]
    metrics = step_metrics(rollouts, [True, True, True, True, False]) | TASK.metrics(rollouts)
    assert metrics["avg_reward"] == pytest.approx((0.4 - 0.2 + 0.0 - 1.0) / 4)  # the abstention is no zero
    assert metrics["8b_win_rate"] == pytest.approx(1 / 4)  # of a win, a loss, a tie, and a gated rewrite that lost
    assert metrics["8b_win_rate_decided"] == pytest.approx(1 / 3) and metrics["decided_share"] == pytest.approx(3 / 4)
    assert metrics["8b_avg_top1"] == pytest.approx(0.7)
    assert metrics["32b_avg_top1"] == pytest.approx(0.7)
    assert metrics["rag_api_calls"] == 5 and metrics["cache_hit_rate"] == pytest.approx(3 / 8)
    assert metrics["abstained"] == metrics["gated"] == pytest.approx(0.2)
    assert (
        metrics["abstained/server_error"]
        == metrics["abstained/rag_failed"]
        == metrics["gated/empty"]
        == pytest.approx(0.2)
    )
    assert metrics["dropped_from_training"] == 1
    assert metrics["rag_joined_rate"] == pytest.approx(1 / 8) and metrics["rag_seconds_p50"] == 0.2
    assert metrics["reward_wait_seconds"] == 1.0 and metrics["cost_cny"] == 0
    assert metrics["weight_judge"] == 0.0 and metrics["weight_retrieval"] == 1.0


def test_a_step_without_a_scored_rollout_invents_no_metric():
    rollouts = [flat_fields(ABSTAINED, TASK)]
    metrics = step_metrics(rollouts, [False]) | TASK.metrics(rollouts)
    assert "avg_reward" not in metrics and "8b_win_rate" not in metrics and metrics["abstained"] == 1.0


@pytest.mark.parametrize(
    ("groups", "rewards", "kept", "share"),
    [
        ("aabb", [0.5, 0.5, 0.1, 0.2], [True] * 4, 0.5),
        ("aabb", [0.5, 0.5, 0.2, 0.2], [True] * 4, 1.0),
        ("aab", [0.1, 0.2, 0.2], [True] * 3, 0.0),  # a lone rollout has no siblings
        ("aabb", [0.1, 0.9, 0.2, 0.2], [True, False, True, True], 1.0),
        ("ab", [0.1, 0.2], [True, True], None),
        ("", [], [], None),
    ],
)
def test_groups_whose_siblings_all_earn_the_same(groups, rewards, kept, share):
    assert same_reward_share(list(groups), rewards, kept) == share


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
