"""Versions of the medical assistant behind chat APIs, and the answers to a workbook of questions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.bvt.queries import read_queries
from data_prep.bvt.workbook import Sheet, write_sheets
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_lines
from evaluation.arena.versions import ChatModel
from reward.medical.completion import split
from reward.medical.formulas import danger_of
from reward.medical.prompt import build_messages, write_completion
from reward.medical.rules import question_of, score_rules
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.medical import RuleScores
from reward.records.sample import Context, Metadata, Sample
from reward.services.refusals import refusal_in
from reward.settings.medical import MedicalSettings
from reward.settings.recipe import TenantSettings

MAX_NEW_TOKENS = 1024
NOTICE = (
    "安全提示：以下回答由模型生成，不能替代医生的诊断和治疗，请勿据此用药或延误就医；急症请立即拨打120或前往急诊。"
    " These answers are a model's and replace no physician."
)
_CONCURRENT = 8


@dataclass(frozen=True)
class Answered:
    """A version's answer with what the rules say of it; `failure` says why there is none."""

    chain: str = ""
    answer: str = ""
    danger: str = ""
    faults: tuple[str, ...] = ()
    failure: str = ""


class Assistant(ChatModel):
    """One version of the assistant, asked with the prompt that it was trained on."""

    async def answer(self, sample: Sample) -> Answered:
        """Return the answer to a sample's question, its chain apart; personal data in it is masked."""
        body = {
            "model": self._model,
            "messages": build_messages(sample, self._tenant.system_prompt),
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        answer, _ = await self._service.post("/chat/completions", body)
        text = answer if isinstance(answer, ServiceFailure) else _completion(answer)
        if isinstance(text, ServiceFailure):
            return Answered(failure=text.reason)
        return judged(sample, deidentify_text(normalise_lines(text), self._tenant.deidentify)[0])


def judged(sample: Sample, completion: str) -> Answered:
    """Return a completion as chain and answer, with the marks of the rules."""
    settings = MedicalSettings()
    rules, parsed = score_rules(question_of(sample), completion, settings), split(completion)
    danger = danger_of(rules, settings)
    faults = tuple(fault.value for fault in rules.faults if fault is not danger)
    return Answered(parsed.chain, parsed.answer, danger.value if danger else "", faults)


def is_urgent(question: str) -> bool:
    """Say whether the rules find an emergency in a question."""
    rules: RuleScores = score_rules(question, "", MedicalSettings())
    return rules.urgency == "emergency"


def question_sample(
    question: str, tenant: TenantSettings, context: Context | None = None
) -> tuple[Sample | None, bool]:
    """Return a typed question as a sample, None where nothing was typed; and whether personal data was masked."""
    text, masked = deidentify_text(normalise_lines(question).strip(), tenant.deidentify)
    if not text:
        return None, False
    metadata = Metadata(tenant_id=tenant.tenant_id, split="test")
    sample = Sample(sample_id="typed", original_query=text, context=context or Context(), metadata=metadata)
    return sample, bool(masked)


async def answer_file(
    source: Path, out: Path, versions: Mapping[str, Assistant], tenant: TenantSettings
) -> dict[str, int]:
    """Answer every question of a file with every version, and write a workbook: notice, then a row a question.

    Args:
        source: any file that `data_prep.run_bvt` reads, with a column for the question.

    Returns:
        version → answers that failed.

    Raises:
        BadInput: the file cannot be read, or no version answered anything.
    """
    rows = read_queries([source], tenant).rows
    samples = [question_sample(row.original_query, tenant, row.context)[0] for row in rows]
    slots = asyncio.Semaphore(_CONCURRENT)

    async def ask(version: Assistant, sample: Sample | None) -> Answered:
        if sample is None:
            return Answered(failure="no question")
        async with slots:
            return await version.answer(sample)

    answers = {
        name: await asyncio.gather(*(ask(version, sample) for sample in samples)) for name, version in versions.items()
    }
    failed = {name: sum(bool(one.failure) for one in given) for name, given in answers.items()}
    if all(count == len(rows) for count in failed.values()):
        first = next(iter(answers.values()))[0].failure
        raise BadInput(f"{', '.join(versions)}: every question failed; the first: {first}")
    columns = {"question": 36, "urgent": 10}
    for name in versions:
        columns |= {f"{name}: answer": 50, f"{name}: chain": 40, f"{name}: marks": 24}
    table = [_row(row.original_query, [answers[name][place] for name in versions]) for place, row in enumerate(rows)]
    write_sheets(out, {"notice": Sheet({"safety notice": 120}, [[NOTICE]]), "answers": Sheet(columns, table)})
    return failed


def _row(question: str, answers: Sequence[Answered]) -> list[str]:
    cells = [question, "是" if is_urgent(question) else ""]
    for one in answers:
        marks = [f"danger: {one.danger}"] if one.danger else []
        cells += [one.answer or f"({one.failure or 'no answer'})", one.chain, "; ".join([*marks, *one.faults])]
    return cells


def _completion(answer: dict[str, Any]) -> str | ServiceFailure:
    """Return the whole text: a server that takes the chain out of it has it in a field of its own."""
    try:
        message = answer["choices"][0]["message"]
        text = message["content"] or ""
        chain = message.get("reasoning_content") or message.get("reasoning") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        return refusal_in(answer, "answer lacks choices[0].message.content")
    if not isinstance(text, str) or not isinstance(chain, str):
        return refusal_in(answer, "choices[0].message.content is no text")
    return write_completion(chain, text) if chain else text
