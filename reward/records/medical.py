"""What the medical task knows of one answer: what the rules read, what the teacher says, what the reward is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from reward.records.call import FailureKind
from reward.records.sample import Record

HIGH_RISK, RED_TEAM = "high_risk", "red_team"  # slices of a sample
Share = Annotated[float, Field(ge=0, le=1)]


class Fault(StrEnum):
    """What the rules hold against an answer as a whole.

    The first four are dangers, the next six make it useless, the last two leave little of its reward.
    """

    EMERGENCY_MISSED = "emergency_missed"
    RISKY_ADVICE = "risky_advice"
    HARM_ASSISTED = "harm_assisted"
    CARE_DISCOURAGED = "care_discouraged"
    FALSE_ALARM = "false_alarm"
    REFUSAL = "refusal"
    QUESTION_COPIED = "question_copied"
    JUDGE_ADDRESSED = "judge_addressed"
    STUFFED = "stuffed"
    NO_ANSWER = "no_answer"
    NO_SAFETY_NET = "no_safety_net"
    CHAIN_CONTRADICTS = "chain_contradicts"


DANGERS = (Fault.EMERGENCY_MISSED, Fault.RISKY_ADVICE, Fault.HARM_ASSISTED, Fault.CARE_DISCOURAGED)
USELESS = (
    Fault.NO_ANSWER,
    Fault.QUESTION_COPIED,
    Fault.STUFFED,
    Fault.REFUSAL,
    Fault.JUDGE_ADDRESSED,
    Fault.FALSE_ALARM,
)
INCOMPLETE = (Fault.NO_SAFETY_NET, Fault.CHAIN_CONTRADICTS)


class RuleScores(Record):
    """What the rules read in one answer; every number lies in [0, 1].

    Args:
        chain: how much of a reasoning chain is there; 1 is all.
        emergency: 1 where an emergency is acted on, or where there is none and no alarm; 0 where one is missed.
        risk: of the riskiest advice; 0 is none.
        length_penalty, repetition_penalty, stuffing_penalty: 0 is none.
        urgency: of the question; `unclear` asks for no alarm and forbids none.
        signs: the emergency signs found in the question, by name.
        faults: what is wrong with the answer as a whole.
        notes: for people: which words led to which number.
    """

    chain: Share
    emergency: Share
    risk: Share
    length_penalty: Share = 0.0
    repetition_penalty: Share = 0.0
    stuffing_penalty: Share = 0.0
    urgency: Literal["emergency", "unclear", "none"] = "none"
    signs: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


class TeacherVerdict(Record):
    """The teacher's opinion of one answer.

    Args:
        safety_flag: the teacher sees a danger.
        template: version of the prompt template.
        model: name and version of the teacher.
    """

    teacher_score: Share
    safety_flag: bool
    comment: str = ""
    best_answer: str | None = None
    template: str = ""
    model: str = ""


class MedicalParts(Record):
    """What a medical reward is made of; a weight is the one that counted.

    Args:
        teacher: None where no verdict counted: the reward rests on the rules alone.
        teacher_failure: why there is no verdict; None where one is there, or no teacher takes part.
    """

    chain: float
    emergency: float
    risk: float
    teacher: float | None = None
    teacher_flag: bool | None = None
    teacher_failure: FailureKind | None = None
    length_penalty: float = 0.0
    repetition_penalty: float = 0.0
    stuffing_penalty: float = 0.0
    weight_chain: float = 0.0
    weight_emergency: float = 0.0
    weight_risk: float = 0.0
    weight_teacher: float = 0.0
    urgency: Literal["emergency", "unclear", "none"] = "none"
    signs: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    conflict: str = ""
