"""Health rules: each one trips on its fault, stays silent beside it, and is not repeated."""

import math
import random

import pytest

from reward.rollouts.health import HealthMonitor, check_health, plain_names
from reward.settings.recipe import HealthSettings

SETTINGS = HealthSettings(window=10)


def healthy(steps: int, seed: int = 1) -> list[dict[str, float]]:
    """A run that learns, noisily, as verl 0.9.1 logs it."""
    chance = random.Random(seed)
    return [
        {
            "avg_reward": -0.05 + 0.002 * step + chance.gauss(0, 0.05),
            "actor/pg_clipfrac": chance.uniform(0.0, 0.3),
            "actor/ppo_kl": chance.gauss(0, 0.001),
            "actor/kl_loss": 0.001 * step,
            "actor/reward_kl_penalty": 0.001 * step,
            "actor/entropy": 1.5 - 0.005 * step,
            "actor/grad_norm": chance.uniform(0.1, 0.5),
            "critic/vf_loss": 0.5 * 0.98**step * chance.uniform(0.7, 1.4),
            "response_length/mean": 10 - 0.02 * step + chance.gauss(0, 0.5),
            "copy_rate": 0.1,
            "training/global_step": step,
        }
        for step in range(1, steps + 1)
    ]


def names(history, settings=SETTINGS) -> list[str]:
    return [warning.name for warning in check_health(history, settings)]


def test_losses_and_clip_fraction_have_plain_names_too():
    step = {"actor/pg_loss": 0.1, "critic/vf_loss": 0.2, "actor/pg_clipfrac": 0.3, "copy_rate": 0.0}
    assert plain_names(step) == {"policy_loss": 0.1, "value_loss": 0.2, "clip_fraction": 0.3}
    assert plain_names({"actor/pg_loss": 0.1}) == {"policy_loss": 0.1}  # GRPO has no critic


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_gets_no_warning_at_any_step(seed):
    monitor = HealthMonitor(HealthSettings())
    assert [warning for step in healthy(150, seed) for warning in monitor.record(step)] == []


@pytest.mark.parametrize(
    ("name", "metric", "fault"),
    [
        ("reward_falls", "avg_reward", lambda step, value: value - 0.3),
        ("clip_fraction", "actor/pg_clipfrac", lambda step, value: 0.6),
        ("value_loss_rises", "critic/vf_loss", lambda step, value: 5 * value),
        ("kl:actor/kl_loss", "actor/kl_loss", lambda step, value: 0.8),
        ("kl:actor/reward_kl_penalty", "actor/reward_kl_penalty", lambda step, value: 0.8),
        ("kl:actor/ppo_kl", "actor/ppo_kl", lambda step, value: -0.7),
        ("entropy_collapse", "actor/entropy", lambda step, value: 0.01),
        ("length_drift", "response_length/mean", lambda step, value: 2 * value),
        ("length_drift", "response_length/mean", lambda step, value: value / 2),
        ("copy_rate", "copy_rate", lambda step, value: 0.7),
        ("not_finite", "actor/grad_norm", lambda step, value: math.nan),
    ],
)
def test_each_rule_trips_on_its_fault_and_on_no_other(name, metric, fault):
    history = healthy(40)
    history[-10:] = [{**step, metric: fault(i, step[metric])} for i, step in enumerate(history[-10:])]
    warnings = check_health(history, SETTINGS)
    assert [warning.name for warning in warnings] == [name]
    assert warnings[0].advice in str(warnings[0])


@pytest.mark.parametrize(
    ("metric", "value"),
    [("actor/pg_clipfrac", 0.9), ("copy_rate", 0.9), ("critic/vf_loss", 50.0), ("response_length/mean", 40.0)],
)
def test_a_single_odd_step_is_no_warning(metric, value):
    history = healthy(40)
    history[-1] = {**history[-1], metric: value}
    assert names(history) == []


def test_rollout_engine_and_trainer_must_agree_on_probabilities():
    normal = [{"training/rollout_probs_diff_mean": 0.004}] * 40
    apart = [{"training/rollout_probs_diff_mean": 0.02}] * 40
    assert names(normal) == [] and names(apart) == ["probability_gap"]


def test_a_fall_within_the_noise_is_no_warning():
    noisy = [{"avg_reward": mean + swing} for mean in (0.2, 0.1) for swing in (-0.3, 0.3) * 5]
    assert names(noisy) == []
    steady = [{"avg_reward": mean + swing} for mean in (0.2, 0.1) for swing in (-0.03, 0.03) * 5]
    assert names(steady) == ["reward_falls"]


def test_advice_is_that_of_the_spec():
    history = healthy(40)
    fault = {"actor/pg_clipfrac": 0.6, "critic/vf_loss": 9.0, "avg_reward": -0.9}
    history[-10:] = [{**step, **fault} for step in history[-10:]]
    advice = {warning.name: warning.advice for warning in check_health(history, SETTINGS)}
    assert "actor_lr" in advice["reward_falls"] and "actor_lr" in advice["clip_fraction"]
    assert "critic" in advice["value_loss_rises"]


def test_short_and_empty_histories_and_absent_metrics():
    assert names([]) == []
    assert names([{"training/global_step": 1}] * 40) == []
    falling = [{"avg_reward": 1.0}] * 10 + [{"avg_reward": 0.0}] * 9
    assert names(falling) == [] and names([*falling, {"avg_reward": 0.0}]) == ["reward_falls"]


def test_entropy_of_the_loss_serves_where_the_recomputed_one_is_absent():
    assert names([{"actor/entropy_loss": 0.01}] * 10) == ["entropy_collapse"]
    assert names([{"actor/entropy": 1.0, "actor/entropy_loss": 0.01}] * 10) == []


def test_a_warning_is_given_once_until_it_has_been_away():
    monitor = HealthMonitor(SETTINGS)
    values = [0.1] * 5 + [0.9] * 6 + [0.1] * 6 + [0.9] * 6
    given = [
        (step, warning.name) for step, value in enumerate(values) for warning in monitor.record({"copy_rate": value})
    ]
    assert given == [(6, "copy_rate"), (18, "copy_rate")]
