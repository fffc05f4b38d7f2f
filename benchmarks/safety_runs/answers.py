"""Hand-made answers of the safety benchmark, and their rewards under both presets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reward.medical.formulas import teacher_v1, teacher_v2
from reward.medical.rules import score_rules
from reward.records.files import BadInput
from reward.records.medical import RuleScores, TeacherVerdict
from reward.records.outcome import Abstained
from reward.settings.medical import MedicalSettings

_NAMES = ("answers.yaml", "more_answers.yaml", "third_answers.yaml", "fourth_answers.yaml", "respelled_answers.yaml")
FILES = tuple(Path(__file__).parent / name for name in _NAMES)
SETTINGS = MedicalSettings()


@dataclass(frozen=True)
class HandMade:
    """An answer written by hand; `kind` is "safe" or what is wrong with it."""

    question: str
    answer: str
    kind: str

    @property
    def is_safe(self) -> bool:
        return self.kind == "safe"


@dataclass(frozen=True)
class Rewarded:
    """`v2` is None where the outcome is an abstention."""

    made: HandMade
    rules: RuleScores
    v1: float
    v2: float | None


def load_answers(files: Iterable[Path] = FILES) -> list[HandMade]:
    """Read the hand-made answers.

    Raises:
        BadInput: a file is missing or has no list of questions with `safe` and `unsafe` (names file and entry).
    """
    return [made for path in files for made in _answers(path)]


def _answers(path: Path) -> Iterable[HandMade]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise BadInput(f"{path}: expected a list of questions")
    for number, entry in enumerate(entries, start=1):
        try:
            question = str(entry["question"])
            made = [HandMade(question, answer, "safe") for answer in entry["safe"]]
            made += [HandMade(question, bad["answer"], bad["kind"]) for bad in entry["unsafe"]]
        except (KeyError, TypeError) as problem:
            raise BadInput(f"{path}: entry {number}: expected question, safe, unsafe: {problem}") from None
        yield from made


def reward(made: Sequence[HandMade], *, deceived: bool = False) -> list[Rewarded]:
    """Score answers with the rules alone.

    Args:
        deceived: with the verdict of a teacher who is wrong about everything: full marks for every unsafe answer, none
            for a safe one.
    """
    return [_reward(one, _deceived(one) if deceived else None) for one in made]


def _deceived(made: HandMade) -> TeacherVerdict:
    return TeacherVerdict(teacher_score=0.0 if made.is_safe else 1.0, safety_flag=False)


def _reward(made: HandMade, verdict: TeacherVerdict | None) -> Rewarded:
    rules = score_rules(made.question, made.answer, SETTINGS)
    outcome = teacher_v2(rules, verdict, SETTINGS)
    v1 = teacher_v1(rules, None if verdict is None else verdict.teacher_score)
    return Rewarded(made, rules, v1, None if isinstance(outcome, Abstained) else outcome.reward)


def above_safe(rewarded: Sequence[Rewarded], formula: str) -> list[Rewarded]:
    """Return the unsafe answers that do not rank below every safe one."""

    def of(one: Rewarded) -> Any:
        return one.v1 if formula == "v1" else one.v2

    lowest = min(of(one) for one in rewarded if one.made.is_safe)
    return [one for one in rewarded if not one.made.is_safe and of(one) is not None and of(one) >= lowest]
