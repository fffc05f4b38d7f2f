"""The sample inspector: answers with rule scores, the teacher's opinion and what is odd, as CSV and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.markdown_table import shorten, table_head, table_row
from evaluation.medical.comparison import how_worse
from evaluation.medical.grading import GradedAnswer, graded
from evaluation.medical.report import NOTICE
from evaluation.medical.sampling import HIGH_REWARD
from reward.medical.completion import split
from reward.medical.prompt import write_completion
from reward.records.files import replacing, write_atomically
from reward.records.medical import HIGH_RISK, RED_TEAM
from reward.records.spreadsheet import ENCODING, CsvTable
from reward.settings.medical import MedicalSettings

# So many high-risk samples are read in a round.
LEAST_HIGH_RISK = 50
_MOST_ROWS = 200  # of the Markdown
COLUMNS = (
    "set", "version", "sample_id", "slices", "question", "chain", "answer", "reward", "chain_score",
    "emergency", "risk", "length_penalty", "repetition_penalty", "stuffing_penalty", "signs", "faults", "notes",
    "teacher_score", "teacher_flag", "teacher_comment", "teacher_failure", "suggested_answer",
    "suggested_reward", "conflict", "anomalies",
)  # fmt: skip


@dataclass(frozen=True)
class Inspected:
    """An answer and what is odd about it.

    Args:
        suggested: the teacher's better answer to the question, "" for none.
        suggested_reward: what it would earn with the same chain, by the rules alone.
    """

    answer: GradedAnswer
    anomalies: tuple[str, ...]
    suggested: str
    suggested_reward: float | None = None

    @property
    def high_risk(self) -> bool:
        return bool({HIGH_RISK, RED_TEAM} & set(self.answer.sample.metadata.slices))


def inspect_answers(
    answers: Sequence[GradedAnswer], suggested: Mapping[str, str], settings: MedicalSettings, version: str = "rl"
) -> list[Inspected]:
    """Mark what is odd about a version's answers, the oddest and the high-risk ones first.

    Args:
        answers: of all versions; the answer of another version to the same question shows what got worse.
        suggested: question → the teacher's better answer.
    """
    before = {(one.question_set, one.sample.sample_id): one for one in answers if one.version != version}
    found = []
    for one in answers:
        if one.version == version:
            better = suggested.get(one.sample.original_query, "")
            marks = tuple(_anomalies(one, before.get((one.question_set, one.sample.sample_id))))
            found.append(Inspected(one, marks, better, _replayed(one, better, settings) if better else None))
    return sorted(found, key=lambda one: (not one.answer.danger, not one.high_risk, -len(one.anomalies)))


def _replayed(one: GradedAnswer, better: str, settings: MedicalSettings) -> float | None:
    completion = write_completion(split(one.completion).chain, better)
    return graded(one.question_set, "teacher", one.sample, completion, settings).reward


def _anomalies(one: GradedAnswer, before: GradedAnswer | None) -> Iterable[str]:
    if one.danger:
        yield f"danger: {one.danger}"
    yield from (f"fault: {fault.value}" for fault in one.rules.faults if fault.value != one.danger)
    if one.conflict:
        yield "teacher against rules"
    if one.teacher_failure:
        yield f"rules only: teacher {one.teacher_failure.value}"
    if before is not None and (worse := how_worse(before, one)):
        yield f"worse than before: {worse}"
    if one.reward is not None and one.reward >= HIGH_REWARD:
        yield "high reward: is it earned?"
    if not split(one.completion).chain:
        yield "no chain"


def write_samples(folder: Path, name: str, inspected: Sequence[Inspected]) -> list[Path]:
    """Write `<name>.csv` with every answer and `<name>.md` with the first ones; return both.

    Raises:
        BadInput: a file cannot be written.
    """
    table, page = folder / f"{name}.csv", folder / f"{name}.md"
    with replacing(table) as partial, partial.open("w", encoding=ENCODING, newline="", errors="replace") as file:
        rows = CsvTable(file, COLUMNS)
        for one in inspected:
            rows.write(_cells(one))
    write_atomically(page, [markdown(name, inspected)])
    return [table, page]


def markdown(name: str, inspected: Sequence[Inspected]) -> str:
    """Return the page: how many are high-risk and odd, then the answers."""
    risky = sum(one.high_risk for one in inspected)
    counts = Counter(anomaly.split(":")[0] for one in inspected for anomaly in one.anomalies)
    lines = [f"# Samples {name}", "", NOTICE, "", f"{len(inspected)} answers, {risky} to high-risk questions."]
    if risky < LEAST_HIGH_RISK:
        lines.append(f"**Fewer than the {LEAST_HIGH_RISK} high-risk samples that a round's review needs.**")
    lines += ["", *(f"- {anomaly}: {count}" for anomaly, count in counts.most_common()), ""]
    lines += table_head("set", "question", "chain", "answer", "reward", "rules", "teacher", "suggested", "marks")
    for one in inspected[:_MOST_ROWS]:
        answer, parsed = one.answer, split(one.answer.completion)
        verdict = answer.teacher
        rules = f"chain {answer.rules.chain:.2f}, emergency {answer.rules.emergency:.2f}, risk {answer.rules.risk:.2f}"
        said = (
            f"{verdict.teacher_score:.2f}{' FLAG' if verdict.safety_flag else ''} {verdict.comment}" if verdict else "-"
        )
        lines.append(
            table_row(
                answer.question_set,
                *(shorten(text) for text in (answer.sample.original_query, parsed.chain, parsed.answer)),
                "-" if answer.reward is None else f"{answer.reward:+.2f}",
                rules,
                shorten(said),
                f"{one.suggested_reward:+.2f} {shorten(one.suggested)}" if one.suggested_reward is not None else "-",
                "; ".join(one.anomalies) or "-",
            )
        )
    if len(inspected) > _MOST_ROWS:
        lines.append(f"\n{len(inspected) - _MOST_ROWS} more are in {name}.csv.")
    return "\n".join(lines)


def _cells(one: Inspected) -> list[Any]:
    answer, parsed, rules = one.answer, split(one.answer.completion), one.answer.rules
    verdict = answer.teacher
    return [
        answer.question_set,
        answer.version,
        answer.sample.sample_id,
        " ".join(answer.sample.metadata.slices),
        answer.sample.original_query,
        parsed.chain,
        parsed.answer,
        "" if answer.reward is None else round(answer.reward, 6),
        rules.chain,
        rules.emergency,
        rules.risk,
        rules.length_penalty,
        rules.repetition_penalty,
        rules.stuffing_penalty,
        " ".join(rules.signs),
        " ".join(rules.faults),
        "; ".join(rules.notes),
        verdict.teacher_score if verdict else "",
        int(verdict.safety_flag) if verdict else "",
        verdict.comment if verdict else "",
        answer.teacher_failure.value if answer.teacher_failure else "",
        one.suggested,
        "" if one.suggested_reward is None else round(one.suggested_reward, 6),
        answer.conflict,
        "; ".join(one.anomalies),
    ]
