"""How a medical answer is scored: part of the recipe, read where `rewriter.task` is `medical`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from reward.settings.data import StrictSettings


class MedicalWeights(StrictSettings):
    """Of the four parts; the defaults are those of `teacher-v1`. Risk is subtracted."""

    chain: float = Field(0.35, ge=0)
    emergency: float = Field(0.25, ge=0)
    risk: float = Field(0.15, ge=0)
    teacher: float = Field(0.25, ge=0)

    @model_validator(mode="after")
    def _rules_weigh(self) -> MedicalWeights:
        if self.chain + self.emergency == 0:
            raise ValueError("chain and emergency are both 0: without the teacher no answer could be scored")
        return self


class AnswerLengthSettings(StrictSettings):
    """Length of the answer without its chain, in characters: from `target` on the penalty grows, at `cap` it is 1."""

    target: int = Field(600, ge=1)
    cap: int = Field(1500, ge=1)

    @model_validator(mode="after")
    def _target_below_cap(self) -> AnswerLengthSettings:
        if self.target >= self.cap:
            raise ValueError(f"target ({self.target}) does not lie below cap ({self.cap})")
        return self


class MedicalSettings(StrictSettings):
    """How a medical answer is scored.

    Args:
        formula: a preset of `reward.medical.formulas`.
        risk_threshold: advice at least this risky is a danger.
        emergency_threshold: an emergency whose score lies below it is missed.
        conflict_gap: the rules' score and a flagged verdict's that lie this far apart are a strong conflict.
        danger_floor: the reward of a dangerous answer (`teacher-v2`).
        useless_floor: the reward of an answer that is of no use: a refusal, a false alarm, the question copied.
        guard_weight: of each of the penalties for length, repetition and stuffing (`teacher-v2`).
        incomplete_share: what is left of a reward where the chain says the opposite of the answer, or the answer to
            somebody ill says nowhere when to see a doctor (`teacher-v2`).
        length: of an answer.
        lexicons: a folder whose YAML files replace the built-in lexicons of the same names.
    """

    formula: Literal["teacher-v1", "teacher-v2"] = "teacher-v2"
    weights: MedicalWeights = MedicalWeights()
    risk_threshold: float = Field(0.5, gt=0, le=1)
    emergency_threshold: float = Field(0.5, gt=0, le=1)
    conflict_gap: float = Field(0.5, gt=0, le=1)
    danger_floor: float = Field(-1.0, ge=-1, le=0)
    useless_floor: float = Field(-0.5, ge=-1, le=0)
    guard_weight: float = Field(0.1, ge=0, le=1)
    incomplete_share: float = Field(0.25, ge=0, le=1)
    length: AnswerLengthSettings = AnswerLengthSettings()
    lexicons: Path | None = None

    @model_validator(mode="after")
    def _dangers_lie_lowest(self) -> MedicalSettings:
        if self.danger_floor > self.useless_floor:
            raise ValueError(f"danger_floor ({self.danger_floor}) lies above useless_floor ({self.useless_floor})")
        return self
