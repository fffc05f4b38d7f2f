"""The permanent negative class: planted bad answers that every round scores, and that must earn the floors alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from reward.medical.formulas import parts_of, teacher_v1, teacher_v2
from reward.medical.rules import score_rules
from reward.records.files import BadInput, first_problem, read_jsonl
from reward.records.medical import Fault, MedicalParts
from reward.records.outcome import Abstained
from reward.records.sample import Record
from reward.settings.medical import MedicalSettings

PLANTED = Path(__file__).parent / "negatives" / "planted.jsonl"


class Planted(Record):
    """A bad answer that was written by hand; `fault` is what the rules must hold against it."""

    id: str
    question: str
    answer: str
    fault: Fault


class PlantedScore(Record):
    """What a planted answer earns. `passes`: more than the useless floor, so that it would teach something bad."""

    id: str
    fault: Fault
    reward: float
    passes: bool
    seen: bool
    parts: MedicalParts


def load_planted(path: Path = PLANTED) -> list[Planted]:
    """Read planted answers.

    Raises:
        BadInput: the file is missing or empty, a line holds none, or an id is there twice (names file and row).
    """
    planted, seen = [], set[str]()
    for row, line in read_jsonl(path):
        try:
            one = Planted.model_validate(line)
        except ValidationError as error:
            raise BadInput(f"{path}: row {row}: {first_problem(error)}") from None
        if one.id in seen:
            raise BadInput(f"{path}: row {row}: id {one.id!r} is there twice")
        seen.add(one.id)
        planted.append(one)
    if not planted:
        raise BadInput(f"{path}: holds no planted answer")
    return planted


def score_planted(planted: list[Planted], settings: MedicalSettings) -> list[PlantedScore]:
    """Score planted answers by the rules alone, as a run with these settings does. Pure.

    `seen` says whether the rules hold the very fault against it that it was written for.
    """
    scores = []
    for one in planted:
        rules = score_rules(one.question, one.answer, settings)
        parts = parts_of(rules, None, settings)
        if settings.formula == "teacher-v1":
            reward = teacher_v1(rules, None, settings.weights)
        else:
            outcome = teacher_v2(rules, None, settings)
            assert not isinstance(outcome, Abstained), "without a verdict there is no conflict"
            reward = outcome.reward
        passes = reward > settings.useless_floor
        scores.append(
            PlantedScore(
                id=one.id, fault=one.fault, reward=reward, passes=passes, seen=one.fault in rules.faults, parts=parts
            )
        )
    return scores
