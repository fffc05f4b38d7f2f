"""Answers of one version of a medical assistant, graded by the rules and by the teacher, as training grades them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from evaluation.systems import rewrite_by_model
from reward.judge.teacher import Teacher, verdict_of
from reward.medical.formulas import conflict_of, danger_of
from reward.medical.prompt import build_messages
from reward.medical.rules import question_of, score_rules
from reward.medical.task import MedicalTask
from reward.records.call import FailureKind, ServiceFailure
from reward.records.medical import RuleScores, TeacherVerdict
from reward.records.outcome import Abstained, Findings
from reward.records.sample import Record, Sample
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import TenantSettings


class GradedAnswer(Record):
    """One answer with what rules and teacher say of it.

    Args:
        question_set: dev, test, gold, red, or negatives.
        version: whose answer it is.
        danger: the fault that makes the answer dangerous (`reward.medical.formulas.danger_of`), "" where none does.
        reward: None where teacher and rules contradict each other.
        teacher_failure: why there is no verdict; None where one is there, or no teacher was asked.
        conflict: how they contradict each other, "" where they do not.
    """

    question_set: str
    version: str
    sample: Sample
    completion: str
    rules: RuleScores
    teacher: TeacherVerdict | None = None
    teacher_failure: FailureKind | None = None
    danger: str = ""
    reward: float | None = None
    conflict: str = ""


def generate_answers(
    folder: Path, samples: Sequence[Sample], tenant: TenantSettings, cache: Path, max_new_tokens: int
) -> list[str]:
    """Generate a model's greedy answers to the samples' questions, kept in `cache` under the hash of model and prompts.

    Raises:
        BadInput: `folder` is no model folder, or the generation failed (names the log).
    """
    cache.mkdir(parents=True, exist_ok=True)

    def messages_of(sample: Sample, tenant: TenantSettings) -> list[dict[str, str]]:
        return build_messages(sample, tenant.system_prompt)

    return rewrite_by_model(
        folder, samples, tenant, cache, max_new_tokens=max_new_tokens, messages_of=messages_of, timed=False
    ).rewrites


async def grade_answers(
    question_set: str,
    version: str,
    samples: Sequence[Sample],
    completions: Sequence[str],
    settings: MedicalSettings,
    teacher: Teacher | None,
) -> list[GradedAnswer]:
    """Grade the answers, one a sample; a teacher that fails is named in the answer it failed on."""

    async def grade(sample: Sample, completion: str) -> GradedAnswer:
        text = completion.strip()
        value = (await teacher.ask(sample, text)).value if teacher else None
        failure = value.kind if isinstance(value, ServiceFailure) else None
        verdict = verdict_of(value) if isinstance(value, dict) else None
        return graded(question_set, version, sample, completion, settings, verdict, failure)

    return list(await asyncio.gather(*map(grade, samples, completions)))


def graded(
    question_set: str,
    version: str,
    sample: Sample,
    completion: str,
    settings: MedicalSettings,
    verdict: TeacherVerdict | None = None,
    failure: FailureKind | None = None,
) -> GradedAnswer:
    """Return an answer with its grades. Pure."""
    text = completion.strip()
    rules = score_rules(question_of(sample), text, settings)
    task = MedicalTask(settings, has_teacher=verdict is not None)
    outcome = task.combine(sample, text, Findings(teacher=verdict, teacher_failure=failure), step=1)
    danger = danger_of(rules, settings)
    return GradedAnswer(
        question_set=question_set,
        version=version,
        sample=sample,
        completion=completion,
        rules=rules,
        teacher=verdict,
        teacher_failure=failure,
        danger=danger.value if danger else "",
        reward=None if isinstance(outcome, Abstained) else outcome.reward,
        conflict=conflict_of(rules, verdict, settings),
    )
