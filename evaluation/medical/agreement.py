"""How far teacher and rules agree with the reviewer, how the teacher has moved, and which weights fit better. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import spearmanr

from reward.judge.agreement import cohen_kappa, kappa_interval
from reward.medical.completion import split
from reward.medical.formulas import teacher_v2
from reward.records.medical import RuleScores, TeacherVerdict
from reward.records.outcome import Abstained
from reward.settings.medical import MedicalSettings, MedicalWeights

# Fewer labels say nothing about weights; so many imagined ones hold the proposal to the present weights.
LEAST_LABELS, PRIOR_LABELS = 20, 10
# No weight leaves this range, whatever the labels say.
WEIGHT_RANGE = (0.05, 0.6)
# The fall of kappa between two templates or models that is called drift.
DRIFT = 0.2


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two yes-no opinions over `count` answers, and its 95 % bootstrap interval; None where one side
    always says the same. `missed`: unsafe by the reviewer and not by the other; `alarms`: the reverse."""

    name: str
    count: int
    kappa: float | None
    low: float | None
    high: float | None
    missed: int
    alarms: int


@dataclass(frozen=True)
class Drift:
    """One teacher (model and template) against the reviewer, and against the teacher before it on the same answers.

    Args:
        changed: mean absolute change of its score on answers that both have graded; None where there are none.
        alarm: kappa fell by more than `DRIFT` from the first one's.
    """

    teacher: str
    agreement: Agreement
    changed: float | None
    alarm: bool


@dataclass(frozen=True)
class Proposal:
    """Weights that fit the reviewer's scores better, and what they would have changed on the labelled answers.

    Args:
        error_before, error_after: root mean square of weighted score minus the reviewer's.
        rank_before, rank_after: Spearman correlation with the reviewer's scores, None where one side is constant.
        moved: mean absolute change of a reward; `turned`: pairs of answers whose order changes.
    """

    count: int
    before: MedicalWeights
    after: MedicalWeights
    error_before: float
    error_after: float
    rank_before: float | None
    rank_after: float | None
    moved: float
    turned: int


def agree(name: str, reviewer: Sequence[bool], other: Sequence[bool]) -> Agreement:
    """Compare yes-no opinions about danger, one an answer."""
    table = np.zeros((2, 2))
    np.add.at(table, ([int(one) for one in reviewer], [int(one) for one in other]), 1)
    kappa = float(cohen_kappa(table)) if len(reviewer) else float("nan")
    low, high = kappa_interval(table, seed=0) if kappa == kappa else (None, None)
    return Agreement(
        name, len(reviewer), None if kappa != kappa else kappa, low, high, int(table[1, 0]), int(table[0, 1])
    )


def agreements(labels: Sequence[Mapping[str, Any]]) -> list[Agreement]:
    """Return the agreement of the teacher's flag and of the rules' dangers with the reviewer."""
    taught = [line for line in labels if line.get("teacher")]
    return [
        agree("teacher", [_unsafe(line) for line in taught], [line["teacher"]["safety_flag"] for line in taught]),
        agree("rules", [_unsafe(line) for line in labels], [bool(line.get("danger")) for line in labels]),
    ]


def drifts(labels: Sequence[Mapping[str, Any]], opinions: Sequence[Mapping[str, Any]]) -> list[Drift]:
    """Return each teacher's agreement with the reviewer, in the order in which the teachers first spoke.

    Args:
        opinions: the values of `teacher_judgements.jsonl`, oldest first.
    """
    unsafe = {(line["question"], _completion_answer(line)): _unsafe(line) for line in labels}
    by_teacher: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for opinion in opinions:
        if opinion.get("mode") == "training":
            name = f"{opinion['model']}, {opinion['template']}"
            by_teacher.setdefault(name, {})[opinion["question"], _answer_of(opinion["answer"])] = opinion
    found: list[Drift] = []
    before: dict[tuple[str, str], Mapping[str, Any]] = {}
    for name, said in by_teacher.items():
        keys = [key for key in said if key in unsafe]
        agreement = agree(name, [unsafe[key] for key in keys], [said[key]["safety_flag"] for key in keys])
        both = said.keys() & before.keys()
        moves = [abs(said[key]["teacher_score"] - before[key]["teacher_score"]) for key in both]
        first = found[0].agreement.kappa if found else None
        fell = first is not None and agreement.kappa is not None and first - agreement.kappa > DRIFT
        found.append(Drift(name, agreement, fmean(moves) if moves else None, fell))
        before |= said
    return found


def propose(labels: Sequence[Mapping[str, Any]], settings: MedicalSettings) -> Proposal | None:
    """Fit the weights of the four parts to the reviewer's scores (1 to 5, as 0 to 1); None with too few labels.

    Least squares over `chain`, `emergency`, `1 - risk` and `teacher`, each weight within `WEIGHT_RANGE`, with
    `PRIOR_LABELS` imagined answers that hold each weight to the present one. The weights keep their sum.
    """
    rated = [line for line in labels if line.get("teacher") and line["label"].get("score")]
    if len(rated) < LEAST_LABELS:
        return None
    now = settings.weights
    parts = np.array([_parts(line) for line in rated])
    wanted = np.array([(line["label"]["score"] - 1) / 4 for line in rated])
    current = np.array([now.chain, now.emergency, now.risk, now.teacher])
    rows = np.vstack([parts, np.sqrt(PRIOR_LABELS) * np.eye(4)])
    aims = np.concatenate([wanted * current.sum(), np.sqrt(PRIOR_LABELS) * current])
    fitted = lsq_linear(rows, aims, bounds=WEIGHT_RANGE).x
    fitted = fitted * current.sum() / fitted.sum()
    names = ("chain", "emergency", "risk", "teacher")
    after = MedicalWeights(**{name: round(float(value), 3) for name, value in zip(names, fitted, strict=True)})
    old, new = (parts @ weights / current.sum() for weights in (current, fitted))
    rewards = [
        (_reward(line, settings), _reward(line, settings.model_copy(update={"weights": after}))) for line in rated
    ]
    both = [(one, two) for one, two in rewards if one is not None and two is not None]
    return Proposal(
        count=len(rated),
        before=now,
        after=after,
        error_before=float(np.sqrt(np.mean((old - wanted) ** 2))),
        error_after=float(np.sqrt(np.mean((new - wanted) ** 2))),
        rank_before=_rank(old, wanted),
        rank_after=_rank(new, wanted),
        moved=fmean(abs(two - one) for one, two in both) if both else 0.0,
        turned=_turned(both),
    )


def _parts(line: Mapping[str, Any]) -> list[float]:
    rules = line["rules"]
    return [rules["chain"], rules["emergency"], 1 - rules["risk"], line["teacher"]["teacher_score"]]


def _reward(line: Mapping[str, Any], settings: MedicalSettings) -> float | None:
    rules, verdict = RuleScores.model_validate(line["rules"]), TeacherVerdict.model_validate(line["teacher"])
    outcome = teacher_v2(rules, verdict, settings)
    return None if isinstance(outcome, Abstained) else outcome.reward


def _turned(both: Sequence[tuple[float, float]]) -> int:
    before, after = (np.array([pair[side] for pair in both]) for side in (0, 1))
    upper = np.triu_indices(len(both), 1)
    old, new = (np.sign(values[:, None] - values[None, :])[upper] for values in (before, after))
    return int((old * new < 0).sum())


def _rank(scores: np.ndarray, wanted: np.ndarray) -> float | None:
    if np.ptp(scores) == 0 or np.ptp(wanted) == 0:
        return None
    return float(spearmanr(scores, wanted).statistic)


def _unsafe(line: Mapping[str, Any]) -> bool:
    return not line["label"]["safe"]


def _completion_answer(line: Mapping[str, Any]) -> str:
    return str(line.get("answer") or "").strip()


def _answer_of(completion: str) -> str:
    return split(completion).answer
