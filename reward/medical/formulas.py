"""The presets that turn rule scores and a teacher's verdict into a reward. Pure, checked to the last digit by tests."""

from __future__ import annotations

from reward.records.medical import DANGERS, INCOMPLETE, USELESS, Fault, MedicalParts, RuleScores, TeacherVerdict
from reward.records.outcome import Abstained, AbstainReason, Gated, GateReason, Parts, Scored
from reward.settings.medical import MedicalSettings, MedicalWeights

TEACHER_V1 = MedicalWeights(chain=0.35, emergency=0.25, risk=0.15, teacher=0.25)


def teacher_v1(rules: RuleScores, teacher_score: float | None, weights: MedicalWeights = TEACHER_V1) -> float:
    """Return `0.35 * chain + 0.25 * emergency - 0.15 * risk + 0.25 * teacher`, in [-0.15, 0.85].

    Without a verdict the weights of chain and emergency are scaled to sum to what they and the teacher's sum to: the
    range stays.
    """
    used = used_weights(weights, has_teacher=teacher_score is not None)
    return (
        used.chain * rules.chain
        + used.emergency * rules.emergency
        - used.risk * rules.risk
        + used.teacher * (teacher_score or 0.0)
    )


def used_weights(weights: MedicalWeights, *, has_teacher: bool) -> MedicalWeights:
    """Return the weights that count: without a verdict the teacher's goes to chain and emergency by their ratio."""
    if has_teacher:
        return weights
    scale = (weights.chain + weights.emergency + weights.teacher) / (weights.chain + weights.emergency)
    update = {"chain": weights.chain * scale, "emergency": weights.emergency * scale, "teacher": 0.0}
    return weights.model_copy(update=update)


def teacher_v2(
    rules: RuleScores, verdict: TeacherVerdict | None, settings: MedicalSettings | None = None
) -> Scored | Gated | Abstained:
    """Return the outcome under `teacher-v2`: safety comes before every sum.

    1. A danger (`danger_of`) earns `danger_floor`, whatever the teacher says.
    2. An answer of no use earns `useless_floor`.
    3. A flag of the teacher that no rule shares is a conflict: a strong one abstains, any other earns at most 0.
    4. All others earn `(weighted sum + risk's weight) / sum of the weights`, less the guards, clipped to [0, 1]; an
       incomplete answer keeps `incomplete_share` of it.
    """
    settings = settings or MedicalSettings()
    parts = parts_of(rules, verdict, settings)
    if (danger := danger_of(rules, settings)) is not None:
        reason, detail = GateReason(danger.value), "; ".join(rules.notes)
        return Gated(reward=settings.danger_floor, reason=reason, detail=detail, parts=Parts(medical=parts))
    for fault in USELESS:
        if fault in rules.faults:
            reason, detail = GateReason(fault.value), "; ".join(rules.notes)
            return Gated(reward=settings.useless_floor, reason=reason, detail=detail, parts=Parts(medical=parts))
    if parts.conflict:
        return Abstained(reason=AbstainReason.CONFLICT, detail=parts.conflict)
    reward = _scaled(rules, verdict, settings)
    if any(fault in rules.faults for fault in INCOMPLETE):
        reward *= settings.incomplete_share
    if verdict is not None and verdict.safety_flag:
        reward = min(reward, 0.0)
    return Scored(reward=reward, parts=Parts(medical=parts))


def danger_of(rules: RuleScores, settings: MedicalSettings) -> Fault | None:
    """Return the danger of an answer: a fault that is one, a missed emergency, a risk at or above the threshold."""
    for fault in DANGERS:
        if fault in rules.faults:
            return fault
    if rules.urgency == "emergency" and rules.emergency < settings.emergency_threshold:
        return Fault.EMERGENCY_MISSED
    return Fault.RISKY_ADVICE if rules.risk >= settings.risk_threshold else None


def conflict_of(rules: RuleScores, verdict: TeacherVerdict | None, settings: MedicalSettings) -> str:
    """Return how rules and teacher contradict each other strongly, "" where they do not.

    The teacher flags what the rules find good, or praises (without a flag) what the rules find dangerous.
    """
    if verdict is None:
        return ""
    danger = danger_of(rules, settings)
    if danger is not None:
        praises = not verdict.safety_flag and verdict.teacher_score >= 0.5 + settings.conflict_gap / 2
        return f"rules: {danger.value}; teacher: {verdict.teacher_score:g}, no flag" if praises else ""
    own = _scaled(rules, None, settings)
    if verdict.safety_flag and own - verdict.teacher_score >= settings.conflict_gap:
        return f"rules: no danger ({own:.2f}); teacher: {verdict.teacher_score:g}, flag"
    return ""


def _scaled(rules: RuleScores, verdict: TeacherVerdict | None, settings: MedicalSettings) -> float:
    used = used_weights(settings.weights, has_teacher=verdict is not None)
    total = teacher_v1(rules, None if verdict is None else verdict.teacher_score, settings.weights)
    reward = (total + used.risk) / (used.chain + used.emergency + used.risk + used.teacher)
    guards = rules.length_penalty + rules.repetition_penalty + rules.stuffing_penalty
    return min(1.0, max(0.0, reward - settings.guard_weight * guards))


def parts_of(rules: RuleScores, verdict: TeacherVerdict | None, settings: MedicalSettings) -> MedicalParts:
    """Return what a reward is made of, under either preset."""
    used = used_weights(settings.weights, has_teacher=verdict is not None)
    shared = rules.model_dump(exclude={"notes"})
    return MedicalParts(
        **shared,
        teacher=None if verdict is None else verdict.teacher_score,
        teacher_flag=None if verdict is None else verdict.safety_flag,
        weight_chain=used.chain,
        weight_emergency=used.emergency,
        weight_risk=used.risk,
        weight_teacher=used.teacher,
        conflict=conflict_of(rules, verdict, settings),
    )
