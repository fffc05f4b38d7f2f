"""What each rule of the medical task still teaches: one that nearly always passes, or never, teaches nothing. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import fmean, pvariance

from reward.medical.rules import question_of, score_rules
from reward.records.medical import Fault, RuleScores
from reward.records.outcome import Rollout
from reward.settings.medical import MedicalSettings

SATURATED = 0.98  # share of rollouts on one side beyond which a rule no longer tells answers apart
_FLAT = 1e-6
Scored = tuple[Rollout, RuleScores]


@dataclass(frozen=True)
class RuleSaturation:
    """One rule over a run's rollouts.

    Args:
        rule: a part of the reward, or a fault.
        applies: rollouts to which it applies (an emergency rule to emergencies).
        passed: share of them that get all that the rule gives.
        mean: of its value; a fault's is the share that has it.
        flat_groups: share of the prompt groups within which the value never differs; None without any group.
        state: `ok`, `always passes`, `never passes`, or `no rollout`.
    """

    rule: str
    applies: int
    passed: float
    mean: float
    flat_groups: float | None
    state: str


def saturation(rollouts: Iterable[Rollout], settings: MedicalSettings) -> list[RuleSaturation]:
    """Return each rule's saturation, scored again from the completions: gated rollouts count like all others."""
    scored = [(r, score_rules(question_of(r.sample), r.completion.strip(), settings)) for r in rollouts]
    urgent = [row for row in scored if row[1].urgency == "emergency"]
    calm = [row for row in scored if row[1].urgency == "none"]
    rules = [
        _rule("chain", scored, lambda rules: rules.chain),
        _rule("emergency acted on", urgent, lambda rules: rules.emergency),
        _rule("no false alarm", calm, lambda rules: rules.emergency),
        _rule("no risk", scored, lambda rules: 1.0 - rules.risk),
        _rule("length", scored, lambda rules: 1.0 - rules.length_penalty),
        _rule("repetition", scored, lambda rules: 1.0 - rules.repetition_penalty),
        _rule("stuffing", scored, lambda rules: 1.0 - rules.stuffing_penalty),
    ]
    return rules + [_rule(f"not {fault.value}", scored, partial(_is_free_of, fault)) for fault in Fault]


def _is_free_of(fault: Fault, rules: RuleScores) -> float:
    return float(fault not in rules.faults)


def _rule(name: str, scored: list[Scored], value: Callable[[RuleScores], float]) -> RuleSaturation:
    if not scored:
        return RuleSaturation(name, 0, 0.0, 0.0, None, "no rollout")
    groups: dict[tuple[int, str], list[float]] = {}
    values = []
    for rollout, rules in scored:
        values.append(value(rules))
        groups.setdefault((rollout.step, rollout.sample.sample_id), []).append(values[-1])
    several = [group for group in groups.values() if len(group) > 1]
    passed = fmean(one >= 1.0 for one in values)
    state = "always passes" if passed >= SATURATED else "never passes" if passed <= 1 - SATURATED else "ok"
    flat = fmean(pvariance(group) < _FLAT for group in several) if several else None
    return RuleSaturation(name, len(values), passed, fmean(values), flat, state)
