"""Health rules over the trainer's own metrics: what is wrong, and what to do about it.

Pure: one mapping of metrics a step in, warnings out. Names are verl's where verl logs the metric, else ours.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pvariance

from reward.settings.recipe import HealthSettings

REWARD, LENGTH, COPIES = "avg_reward", "response_length/mean", "copy_rate"
CLIP_FRACTION, VALUE_LOSS = "actor/pg_clipfrac", "critic/vf_loss"
ENTROPY = ("actor/entropy", "actor/entropy_loss")  # the second one only when log-probabilities are not recomputed
KL = {  # from the reference (in the loss or in the reward), within one update, of trainer from rollout engine
    "actor/kl_loss": "the policy is far from its start: raise actor.kl_loss_coef or lower recipe.rl.actor_lr",
    "actor/reward_kl_penalty": "the policy is far from its start: raise algorithm.kl_ctrl.kl_coef",
    "actor/ppo_kl": "single updates go too far: lower recipe.rl.actor_lr or actor.ppo_epochs",
    "rollout_corr/kl": "trainer and rollout engine disagree on the same tokens: align their precision",
}
# How far trainer and rollout engine are apart in the probability of a sampled token, on average.
PROBABILITIES = "training/rollout_probs_diff_mean"
FINITE = (REWARD, LENGTH, CLIP_FRACTION, VALUE_LOSS, *ENTROPY, *KL, "actor/pg_loss", "actor/grad_norm")
# What verl logs, under the names people look for as well.
PLAIN_NAMES = {"actor/pg_loss": "policy_loss", VALUE_LOSS: "value_loss", CLIP_FRACTION: "clip_fraction"}
NOISE = 3.0  # standard errors that a fall of the reward must exceed


def plain_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """`policy_loss`, `value_loss` (with a critic) and `clip_fraction` of a step that verl updated in."""
    return {plain: metrics[name] for name, plain in PLAIN_NAMES.items() if name in metrics}


@dataclass(frozen=True)
class HealthWarning:
    """A rule that is broken: `value` against `limit`, both in the unit of the metric (ratios for rises and drifts)."""

    name: str
    value: float
    limit: float
    advice: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g} (limit {self.limit:.3g}): {self.advice}"


class HealthMonitor:
    """Keeps the last steps and says what is new: a warning that persists is given once, until it has been away."""

    def __init__(self, settings: HealthSettings):
        self._settings = settings
        self._history: deque[Mapping[str, float]] = deque(maxlen=2 * settings.window)
        self._active: set[str] = set()

    def record(self, step_metrics: Mapping[str, float]) -> list[HealthWarning]:
        """Take in a step's metrics; returns the warnings that the step before did not have."""
        self._history.append(step_metrics)
        warnings = check_health(self._history, self._settings)
        known, self._active = self._active, {warning.name for warning in warnings}
        return [warning for warning in warnings if warning.name not in known]


def check_health(history: Sequence[Mapping[str, float]], settings: HealthSettings) -> list[HealthWarning]:
    """The rules broken at the end of `history`, one mapping of metrics a step, the newest last.

    Levels (clip fraction, KL, entropy, copies) are medians over the last quarter window, so that a single step is no
    alarm; falls, rises and drifts set the last `window` steps against the `window` before, and need both. A metric that
    a run does not log breaks no rule.
    """
    return list(_warnings(history, settings))


def _warnings(history: Sequence[Mapping[str, float]], settings: HealthSettings) -> Iterator[HealthWarning]:
    window, short = settings.window, max(3, settings.window // 4)

    def series(name: str) -> list[float]:
        return [float(step[name]) for step in history if name in step and math.isfinite(step[name])]

    def level(name: str) -> float | None:
        values = series(name)[-short:]
        return median(values) if len(values) == short else None

    def halves(name: str) -> tuple[list[float], list[float]] | None:
        values = series(name)
        return (values[-2 * window : -window], values[-window:]) if len(values) >= 2 * window else None

    broken = [name for name in FINITE if history and not math.isfinite(history[-1].get(name, 0.0))]
    if broken:
        advice = f"{', '.join(broken)} not finite: go back to the last checkpoint and lower the learning rate"
        yield HealthWarning("not_finite", math.nan, math.inf, advice)

    if pair := halves(REWARD):
        before, now = pair
        fall = fmean(before) - fmean(now)
        noise = NOISE * math.sqrt((pvariance(before) + pvariance(now)) / window)
        if fall > max(settings.reward_fall, noise):
            yield HealthWarning("reward_falls", fall, settings.reward_fall, "lower recipe.rl.actor_lr: it is too high")

    clipped = level(CLIP_FRACTION)
    if clipped is not None and clipped > settings.clip_fraction:
        advice = "lower recipe.rl.actor_lr or actor.ppo_epochs; 0.1-0.3 is healthy"
        yield HealthWarning("clip_fraction", clipped, settings.clip_fraction, advice)

    if pair := halves(VALUE_LOSS):
        # Medians: one odd batch can multiply a mean.
        before_loss, now_loss = median(pair[0]), median(pair[1])
        if before_loss > 0 and now_loss / before_loss > settings.value_loss_rise:
            advice = "the critic is in trouble: lower recipe.rl.critic_lr or raise trainer.critic_warmup"
            yield HealthWarning("value_loss_rises", now_loss / before_loss, settings.value_loss_rise, advice)

    for name, advice in KL.items():
        distance = level(name)
        if distance is not None and abs(distance) > settings.kl:
            yield HealthWarning(f"kl:{name}", abs(distance), settings.kl, advice)

    apart = level(PROBABILITIES)
    if apart is not None and apart > settings.probability_gap:
        advice = "trainer and rollout engine disagree on the same tokens: recipe.rl.top_p=1.0, align their precision"
        yield HealthWarning("probability_gap", apart, settings.probability_gap, advice)

    entropy = next((value for name in ENTROPY if (value := level(name)) is not None), None)
    if entropy is not None and entropy < settings.entropy_floor:
        advice = "the policy has all but stopped exploring: raise actor.entropy_coeff or stop here"
        yield HealthWarning("entropy_collapse", entropy, settings.entropy_floor, advice)

    if pair := halves(LENGTH):
        before_length, now_length = fmean(pair[0]), fmean(pair[1])
        drift = max(now_length, before_length) / max(min(now_length, before_length), 1e-9)
        if drift > settings.length_drift:
            direction = "longer" if now_length > before_length else "shorter"
            advice = f"rewrites get {direction} fast: read some, and check reward.length.target and .penalty"
            yield HealthWarning("length_drift", drift, settings.length_drift, advice)

    copied = level(COPIES)
    if copied is not None and copied > settings.copy_rate:
        advice = "the policy hands most queries back unchanged: train on harder prompts or raise the temperature"
        yield HealthWarning("copy_rate", copied, settings.copy_rate, advice)
