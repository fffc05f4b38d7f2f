"""A medical answer as a task (`reward.task.Task`): rules first, then a teacher's opinion where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reward.medical.formulas import parts_of, teacher_v1, teacher_v2
from reward.medical.rules import question_of, score_rules
from reward.records.medical import MedicalParts
from reward.records.outcome import Abstained, Findings, Gated, Parts, Rollout, Scored
from reward.records.request import AskTeacher, Request
from reward.records.sample import Sample
from reward.settings.medical import MedicalSettings

_PARTS = ("chain", "emergency", "risk", "length_penalty", "repetition_penalty", "stuffing_penalty")


class MedicalTask:
    """Scores an answer with its chain.

    Args:
        has_teacher: whether a teacher is asked about every answer. Where it is down the rules alone score, and
            `Parts.medical.teacher_failure` says so.
    """

    def __init__(self, settings: MedicalSettings, *, has_teacher: bool):
        self._settings, self._has_teacher = settings, has_teacher

    def parse(self, completion: str) -> str:
        return completion.strip()

    def gate(self, sample: Sample, text: str) -> Gated | None:
        # The teacher reads dangerous answers too: that it praises one is a conflict to look into.
        return None

    def requests(self, sample: Sample, text: str, findings: Findings) -> dict[str, Request]:
        if not self._has_teacher or findings.teacher is not None or findings.teacher_failure is not None:
            return {}
        return {"teacher": AskTeacher(text)}

    def combine(self, sample: Sample, text: str, findings: Findings, step: int) -> Scored | Gated | Abstained:
        settings, verdict = self._settings, findings.teacher
        rules = score_rules(question_of(sample), text, settings)
        if settings.formula == "teacher-v1":
            reward = teacher_v1(rules, None if verdict is None else verdict.teacher_score, settings.weights)
            outcome: Scored | Gated | Abstained = Scored(
                reward=reward, parts=Parts(medical=parts_of(rules, verdict, settings))
            )
        else:
            outcome = teacher_v2(rules, verdict, settings)
        return _with_failure(outcome, findings)

    def resume(self, rollouts: Iterable[Rollout]) -> None:
        return None

    def fields(self, rollout: Rollout) -> dict[str, float]:
        parts = medical_parts(rollout)
        measured = {name: float(getattr(parts, name)) if parts else 0.0 for name in _PARTS}
        return {
            **measured,
            "measured": float(parts is not None),
            "taught": float(parts is not None and parts.teacher is not None),
            "teacher": (parts and parts.teacher) or 0.0,
            "teacher_flag": float(bool(parts and parts.teacher_flag)),
            "teacher_down": float(rollout.teacher_failure is not None),
            "conflict": float(bool(parts and parts.conflict)),
            "in_emergency": float(bool(parts and parts.urgency == "emergency")),
            "length": float(len(rollout.completion.strip())),
        }

    def metrics(self, rollouts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        metrics: dict[str, float] = {}

        def mean(name: str, values: Sequence[float]) -> None:
            if values:
                metrics[name] = sum(values) / len(values)

        measured = [r for r in rollouts if r["measured"]]
        for name in _PARTS:
            mean(f"reward_{name}", [r[name] for r in measured])
        mean("reward_teacher", [r["teacher"] for r in measured if r["taught"]])
        mean("teacher_flag_rate", [r["teacher_flag"] for r in measured if r["taught"]])
        mean("rules_only_rate", [1 - r["taught"] for r in measured])
        mean("teacher_down_rate", [r["teacher_down"] for r in rollouts])
        mean("conflict_rate", [r["conflict"] for r in rollouts])
        mean("emergency_share", [r["in_emergency"] for r in measured])
        mean("answer_length", [r["length"] for r in rollouts])
        return metrics


def medical_parts(rollout: Rollout) -> MedicalParts | None:
    """Return what a rollout's reward is made of; None where nothing was measured."""
    outcome = rollout.outcome
    parts = None if isinstance(outcome, Abstained) else outcome.parts
    return parts.medical if parts else None


def _with_failure(outcome: Scored | Gated | Abstained, findings: Findings) -> Scored | Gated | Abstained:
    if findings.teacher_failure is None or isinstance(outcome, Abstained):
        return outcome
    if outcome.parts is None or outcome.parts.medical is None:
        return outcome
    medical = outcome.parts.medical.model_copy(update={"teacher_failure": findings.teacher_failure})
    return outcome.model_copy(update={"parts": outcome.parts.model_copy(update={"medical": medical})})
