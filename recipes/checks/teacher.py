"""One question to the teacher of a medical assistant before a trainer starts. The answer goes to the run's ledger."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from recipes.checks.finding import Finding, bad, ok, warning
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.sample import Sample
from reward.settings.recipe import RewriterSettings

_TRIED = "<think>\n先了解情况。\n</think>\n\n请到医院就诊，由医生评估。"


def teacher_findings(settings: RewriterSettings, samples: Sequence[Sample]) -> list[Finding]:
    """Say which formula scores, and whether the teacher answers: without it the rules score alone, a warning."""
    findings = [ok("reward", f"{settings.medical.formula} of rules and teacher")]
    teacher = settings.teacher
    if teacher is None:
        text = "none: the rules score alone (teacher=deepseek_v3, deepseek_r1 or self_hosted)"
        return [*findings, warning("teacher", text)]
    if teacher.api_key_env and not os.environ.get(teacher.api_key_env):
        return [*findings, bad("teacher", f"rewriter.teacher: environment variable {teacher.api_key_env} is not set")]
    where = f"{teacher.service} at {teacher.base_url}"
    if not samples:
        return [*findings, warning("teacher", f"{where}: not asked: the question would come from the training data")]
    try:
        asked = asyncio.run(_ask(settings, samples[0]))
    except BadInput as problem:
        return [*findings, bad("teacher", str(problem))]
    if isinstance(asked, ServiceFailure):
        text = f"{where}: {asked.reason}; while it is down the rules score alone, and every rollout says so"
        return [*findings, warning("teacher", text)]
    return [*findings, ok("teacher", f"{where} grades a cautious answer {asked:.2f}")]


async def _ask(settings: RewriterSettings, sample: Sample) -> float | ServiceFailure:
    from reward.judge.teacher import teaching  # its client takes a second to import: a refusal must not wait for it

    assert settings.teacher is not None
    async with teaching(settings.teacher, settings.ledger, settings.tenant.tenant_id) as teacher:
        value = (await teacher.ask(sample, _TRIED)).value
    return value if isinstance(value, ServiceFailure) else float(value["teacher_score"])
