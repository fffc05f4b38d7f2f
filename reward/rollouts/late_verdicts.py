"""Verdicts that a teacher gave after a run, put into the rollouts that its absence had left to the rules alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from reward.records.files import BadInput, first_problem, read_jsonl
from reward.records.medical import TeacherVerdict
from reward.records.outcome import Rollout

# (question, answer) → the verdict on it.
Verdicts = Mapping[tuple[str, str], TeacherVerdict]


def read_verdicts(path: Path) -> Verdicts:
    """Read `teacher_judgements.jsonl`; of several verdicts on one answer the last counts.

    Raises:
        BadInput: the file is missing, or a line holds no verdict (names file and row).
    """
    verdicts = {}
    for row, line in read_jsonl(path):
        value = line.get("value")
        if not isinstance(value, dict) or not {"question", "answer"} <= value.keys():
            raise BadInput(f"{path}: row {row}: value: expected an opinion with question and answer")
        if value.get("mode") != "training":
            continue
        try:
            verdict = TeacherVerdict.model_validate({name: value.get(name) for name in TeacherVerdict.model_fields})
        except ValidationError as error:
            raise BadInput(f"{path}: row {row}: value: {first_problem(error)}") from None
        verdicts[value["question"], value["answer"]] = verdict
    return verdicts


def lacks_verdict(rollout: Rollout) -> bool:
    """Say whether the teacher was asked about a rollout in vain."""
    return rollout.teacher is None and rollout.teacher_failure is not None


def with_verdicts(rollouts: Iterable[Rollout], verdicts: Verdicts, given: Counter[str]) -> Iterator[Rollout]:
    """Yield the rollouts; one that lacks its verdict gets the late one, where there is one.

    Args:
        given: counts rollouts whose verdict was `missing`, and those of them for which one was `found`.
    """
    for rollout in rollouts:
        if lacks_verdict(rollout):
            given["missing"] += 1
            verdict = verdicts.get((rollout.sample.original_query, rollout.completion.strip()))
            if verdict is not None:
                given["found"] += 1
                rollout = rollout.model_copy(update={"teacher": verdict, "teacher_failure": None})
        yield rollout
