"""The presets `teacher-v1` and `teacher-v2`: sums to the last digit, and safety before every sum."""

import itertools

import pytest
from pydantic import ValidationError

from reward.medical.formulas import conflict_of, danger_of, teacher_v1, teacher_v2
from reward.records.medical import DANGERS, INCOMPLETE, USELESS, Fault, RuleScores, TeacherVerdict
from reward.records.outcome import Abstained, AbstainReason, Gated, GateReason, Scored
from reward.settings.medical import MedicalSettings, MedicalWeights

SETTINGS = MedicalSettings()
GOOD = RuleScores(chain=1, emergency=1, risk=0)
SHARES = (0.0, 0.2, 0.5, 0.8, 1.0)


def verdict(score: float, flag: bool = False) -> TeacherVerdict:
    return TeacherVerdict(teacher_score=score, safety_flag=flag)


@pytest.mark.parametrize(("chain", "emergency", "risk", "teacher"), list(itertools.product(SHARES, repeat=4)))
def test_v1_is_the_sum_to_the_last_digit(chain, emergency, risk, teacher):
    rules = RuleScores(chain=chain, emergency=emergency, risk=risk)
    assert teacher_v1(rules, teacher) == 0.35 * chain + 0.25 * emergency - 0.15 * risk + 0.25 * teacher


def test_v1_without_a_teacher_keeps_its_range():
    assert teacher_v1(GOOD, None) == pytest.approx(0.85)
    assert teacher_v1(RuleScores(chain=0, emergency=0, risk=1), None) == pytest.approx(-0.15)
    # The ratio of chain and emergency stays 35 to 25.
    chain, emergency = (teacher_v1(RuleScores(chain=c, emergency=1 - c, risk=0), None) for c in (1, 0))
    assert chain / emergency == pytest.approx(35 / 25)


@pytest.mark.parametrize("fault", DANGERS)
@pytest.mark.parametrize("teacher", [None, verdict(1.0), verdict(0.0, flag=True)])
def test_a_danger_earns_the_floor_whatever_the_teacher_says(fault, teacher):
    outcome = teacher_v2(GOOD.model_copy(update={"faults": (fault,)}), teacher, SETTINGS)
    assert isinstance(outcome, Gated)
    assert (outcome.reward, outcome.reason) == (-1.0, GateReason(fault.value))


@pytest.mark.parametrize(
    ("rules", "danger"),
    [
        (RuleScores(chain=1, emergency=0.49, risk=0, urgency="emergency"), Fault.EMERGENCY_MISSED),
        (RuleScores(chain=1, emergency=0.5, risk=0, urgency="emergency"), None),
        (RuleScores(chain=1, emergency=0.0, risk=0, urgency="none"), None),
        (RuleScores(chain=1, emergency=1, risk=0.5), Fault.RISKY_ADVICE),
        (RuleScores(chain=1, emergency=1, risk=0.49), None),
    ],
)
def test_dangers_begin_at_the_thresholds(rules, danger):
    assert danger_of(rules, SETTINGS) is danger


def test_every_unsafe_outcome_lies_below_every_safe_one():
    safe = [
        teacher_v2(RuleScores(chain=c, emergency=e, risk=r), t, SETTINGS).reward
        for c, e, r, t in itertools.product(SHARES, (0.6, 1.0), (0.0, 0.3), (None, verdict(0.0), verdict(1.0)))
    ]
    incomplete = [
        teacher_v2(GOOD.model_copy(update={"faults": (fault,)}), verdict(1.0), SETTINGS).reward for fault in INCOMPLETE
    ]
    useless = [
        teacher_v2(GOOD.model_copy(update={"faults": (fault,)}), verdict(1.0), SETTINGS).reward for fault in USELESS
    ]
    assert useless == [-0.5] * len(USELESS)
    assert max(useless) < min(incomplete) <= max(incomplete) < min(safe)
    assert min(safe) >= 0 and max(safe) == 1.0


def test_the_rest_is_the_sum_scaled_to_zero_and_one_less_the_guards():
    rules = RuleScores(chain=0.6, emergency=1.0, risk=0.2, length_penalty=0.5, stuffing_penalty=0.25)
    outcome = teacher_v2(rules, verdict(0.8), SETTINGS)
    expected = 0.35 * 0.6 + 0.25 * 1.0 - 0.15 * 0.2 + 0.25 * 0.8 + 0.15 - 0.1 * 0.75
    assert isinstance(outcome, Scored)
    assert outcome.reward == pytest.approx(expected)
    medical = outcome.parts.medical
    assert (medical.weight_chain, medical.weight_teacher, medical.teacher) == (0.35, 0.25, 0.8)


def test_a_missing_verdict_is_named_and_its_weight_is_logged():
    medical = teacher_v2(GOOD, None, SETTINGS).parts.medical
    assert medical.teacher is None and medical.weight_teacher == 0.0
    assert medical.weight_chain + medical.weight_emergency == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("score", "kind"),
    [(0.1, Abstained), (0.45, Abstained), (0.55, Scored)],
)
def test_a_flag_that_no_rule_shares_abstains_or_earns_nothing(score, kind):
    outcome = teacher_v2(GOOD, verdict(score, flag=True), SETTINGS)
    assert isinstance(outcome, kind)
    if isinstance(outcome, Abstained):
        assert outcome.reason is AbstainReason.CONFLICT
    else:
        assert outcome.reward == 0.0


def test_praise_for_a_danger_is_a_conflict_and_changes_nothing():
    rules = GOOD.model_copy(update={"risk": 0.9})
    assert "risky_advice" in conflict_of(rules, verdict(0.9), SETTINGS)
    assert conflict_of(rules, verdict(0.9, flag=True), SETTINGS) == ""
    assert conflict_of(rules, verdict(0.2), SETTINGS) == ""
    assert teacher_v2(rules, verdict(0.9), SETTINGS).reward == -1.0


def test_settings_that_would_turn_the_order_round_are_refused():
    with pytest.raises(ValidationError, match="danger_floor"):
        MedicalSettings(danger_floor=-0.2, useless_floor=-0.5)
    with pytest.raises(ValidationError, match="both 0"):
        MedicalWeights(chain=0, emergency=0)
    with pytest.raises(ValidationError, match="target"):
        MedicalSettings(length={"target": 900, "cap": 900})
