"""What a round leaves beside its model: rewards.csv, kl_metrics.json, teacher_usage.csv, teacher_conflicts.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.medical.grading import GradedAnswer, graded
from reward.medical.completion import split
from reward.medical.task import medical_parts
from reward.records.files import BadInput, read_jsonl, replacing, write_atomically, write_json
from reward.records.outcome import Gated, Rollout, Scored
from reward.records.spreadsheet import ENCODING, CsvTable
from reward.rollouts.rollout_log import read_rollouts
from reward.settings.medical import MedicalSettings

REWARDS_FILE, KL_FILE, USAGE_FILE = "rewards.csv", "kl_metrics.json", "teacher_usage.csv"
JUDGEMENTS_FILE, CONFLICTS_FILE, RULES_FILE = "teacher_judgements.jsonl", "teacher_conflicts.jsonl", "reward_rules.md"
_PARTS = (
    "chain", "emergency", "risk", "teacher", "length_penalty", "repetition_penalty", "stuffing_penalty", "weight_chain",
    "weight_emergency", "weight_risk", "weight_teacher",
)  # fmt: skip
COLUMNS = (
    "step", "sample_id", "split", "slices", "kind", "reward", "reason", "detail", *_PARTS, "teacher_flag",
    "teacher_comment", "teacher_failure", "urgency", "signs", "faults", "conflict", "question", "answer",
)  # fmt: skip


def write_rewards(path: Path, rollouts: Iterable[Rollout]) -> int:
    """Write one row a rollout and return how many; a number that does not apply is an empty cell, never 0."""
    count = 0
    with replacing(path) as partial, partial.open("w", encoding=ENCODING, newline="", errors="replace") as file:
        table = CsvTable(file, COLUMNS)
        for rollout in rollouts:
            table.write(_cells(rollout))
            count += 1
    return count


def _cells(rollout: Rollout) -> list[Any]:
    outcome, parts, verdict = rollout.outcome, medical_parts(rollout), rollout.teacher
    metadata = rollout.sample.metadata
    return [
        rollout.step,
        rollout.sample.sample_id,
        metadata.split,
        " ".join(metadata.slices),
        outcome.kind,
        outcome.reward if isinstance(outcome, Scored | Gated) else "",
        "" if isinstance(outcome, Scored) else outcome.reason.value,
        "" if isinstance(outcome, Scored) else outcome.detail,
        *(_number(getattr(parts, name)) if parts else "" for name in _PARTS),
        "" if verdict is None else int(verdict.safety_flag),
        "" if verdict is None else verdict.comment,
        rollout.teacher_failure.value if rollout.teacher_failure else "",
        parts.urgency if parts else "",
        " ".join(parts.signs) if parts else "",
        " ".join(parts.faults) if parts else "",
        parts.conflict if parts else outcome.detail if outcome.kind == "abstained" else "",
        rollout.sample.original_query,
        rollout.completion.strip(),
    ]


def write_kl(path: Path, run: Path, round_name: str) -> int:
    """Write the divergence from the SFT model step by step, as the trainer's file logger has it; return the steps.

    Raises:
        BadInput: the run has no metrics file, or logged no divergence.
    """
    files = sorted((run / "logs" / "metrics").glob("*.jsonl"))
    steps: dict[int, dict[str, float]] = {}
    for file in files:
        for _, line in read_jsonl(file):
            data = line.get("data")
            values = data if isinstance(data, dict) else {}
            found = {name: float(value) for name, value in values.items() if _is_divergence(name, value)}
            if found:
                steps.setdefault(int(line["step"]), {}).update(found)
    if not steps:
        raise BadInput(f"{run / 'logs' / 'metrics'}: no step logs a KL (recipe.machine.loggers needs `file`)")
    ordered = [steps[step] for step in sorted(steps)]
    names = sorted({name for step in ordered for name in step})
    mean = {name: fmean(step[name] for step in ordered if name in step) for name in names}
    last = {name: next(step[name] for step in reversed(ordered) if name in step) for name in names}
    rows = [{"step": step, **steps[step]} for step in sorted(steps)]
    write_json(path, {"round": round_name, "mean": mean, "last": last, "steps": rows})
    return len(rows)


def _is_divergence(name: str, value: Any) -> bool:
    parts = name.replace("/", "_").split("_")
    return isinstance(value, int | float) and "kl" in parts and not name.startswith("val")


def read_conflicts(run: Path, settings: MedicalSettings) -> Iterator[GradedAnswer]:
    """Yield the rollouts of a run on which teacher and rules contradict each other strongly, each answer once."""
    seen: set[tuple[str, str]] = set()
    for rollout in read_rollouts(run):
        key = (rollout.sample.original_query, rollout.completion)
        if rollout.teacher is None or key in seen:
            continue
        one = graded("training", f"step {rollout.step}", rollout.sample, rollout.completion, settings, rollout.teacher)
        if one.conflict:
            seen.add(key)
            yield one


def read_suggestions(judgements: Path) -> dict[str, str]:
    """Return the better answers that the teacher offered in its data-quality mode, by question.

    Raises:
        BadInput: the file cannot be read.
    """
    values = [line.get("value") for _, line in read_jsonl(judgements)]
    return {value["question"]: value["best_answer"] for value in values if value and value.get("best_answer")}


def answer_line(round_name: str, one: GradedAnswer) -> dict[str, Any]:
    """Return an answer as a line of `teacher_conflicts.jsonl`: both opinions of it, and the teacher's advice."""
    parsed, verdict = split(one.completion), one.teacher
    return {
        "round": round_name,
        "question_set": one.question_set,
        "version": one.version,
        "sample_id": one.sample.sample_id,
        "slices": list(one.sample.metadata.slices),
        "question": one.sample.original_query,
        "history": one.sample.context.text,
        "chain": parsed.chain,
        "answer": parsed.answer,
        "reward": one.reward,
        "conflict": one.conflict,
        "rules": one.rules.model_dump(mode="json"),
        "danger": one.danger,
        "teacher": verdict.model_dump(mode="json") if verdict else None,
        "advice": (verdict.best_answer or verdict.comment) if verdict else "",
    }


def write_conflicts(path: Path, round_name: str, conflicts: Sequence[GradedAnswer]) -> int:
    """Replace the round's lines of the file, keep those of other rounds, and return how many are the round's.

    Raises:
        BadInput: a line of the file is no JSON object, or it cannot be written.
    """
    kept = [line for _, line in read_jsonl(path) if line.get("round") != round_name] if path.is_file() else []
    lines = [*kept, *(answer_line(round_name, one) for one in conflicts)]
    write_atomically(path, (json.dumps(line, ensure_ascii=False) for line in lines))
    return len(lines) - len(kept)


def _number(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)
