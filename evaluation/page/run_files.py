"""What a run left behind, whole or not: every file that is missing or cut off is named, none is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.page.shape import problem_of_metrics, problem_of_row
from evaluation.summary import METRICS_FILE, REWRITES_FILE
from evaluation.texts import Texts
from evaluation.training_log import beyond, read_training_log
from reward.records.files import BadInput

_PARTS = ("systems", "slices", "win_rate", "provenance")  # of metrics.json, in every comparison
_MEASURED = ("targets", "judge", "harmed", "latency_ms", "tokens", "cost_per_1000")  # where it could be measured
_NAMED = 5  # metrics with values that are no numbers
_STEP = re.compile(r"(?:^|\s)step:(\d+) - (.*)")  # verl's console logger
_NUMPY = re.compile(r"np\.\w+\((.*)\)")  # how some numbers are written there


@dataclass(frozen=True)
class RunFiles:
    """Contents of a run.

    Args:
        metrics: of `metrics.json`; any part may be missing.
        rows: of `rewrites.jsonl`.
        log: the steps of `reward_metrics.jsonl`, with the trainer's own metrics where its log was found.
        missing: what is missing, a sentence each.
        has_trainer_log: whether a log of the trainer was found.
    """

    metrics: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    log: list[dict[str, Any]]
    missing: list[str] = field(default_factory=list)
    has_trainer_log: bool = False


def read_run(folder: Path, train_log: Path | None, trainer_log: Path | None, texts: Texts) -> RunFiles:
    """Read what is there of a comparison and of the training before it.

    Args:
        folder: what `evaluation.compare` wrote.
        train_log: `reward_metrics.jsonl`; the file logger's `logs/metrics/*.jsonl` beside it are read too.
        trainer_log: what the trainer wrote on its console, where there is no file logger.

    Raises:
        BadInput: there is neither a comparison nor a training log, or a file is damaged elsewhere than at its end.
    """
    missing: list[str] = []
    metrics_file, rewrites_file = folder / METRICS_FILE, folder / REWRITES_FILE
    if not metrics_file.is_file() and not rewrites_file.is_file() and train_log is None:
        raise BadInput(f"{metrics_file}: no such file; run evaluation.compare first")
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    if metrics_file.is_file():
        metrics = read_metrics(metrics_file)
        missing += [texts("warning.part", part=part) for part in _PARTS if metrics.get(part) is None]
    else:
        missing.append(texts("warning.unfinished", file=metrics_file.name))
    if rewrites_file.is_file():
        rows = _read_lines(rewrites_file, missing, texts)
        for number, row in enumerate(rows, start=1):
            if problem := problem_of_row(row):
                raise BadInput(f"{rewrites_file}: row {number}: {problem}")
    else:
        missing.append(texts("warning.rewrites", file=rewrites_file.name))
    log = _read_log(train_log, missing, texts) if train_log else []
    own = _read_trainer_log(train_log, trainer_log, missing, texts)
    joined = _joined(log, own)
    if lost := beyond(joined):
        named = texts("measured.comma").join(f"{name} ({count})" for name, count in lost.most_common(_NAMED))
        missing.append(texts("warning.not_finite", count=lost.total(), metrics=len(lost), named=named))
    missing += (metrics.get("provenance") or {}).get("missing") or []
    return RunFiles(metrics, rows, joined, missing, bool(own))


def not_measured(metrics: Mapping[str, Any], texts: Texts) -> list[str]:
    """Name the parts that this comparison could have and has not."""
    return [texts(f"part.{part}") for part in _MEASURED if not _holds_something(metrics.get(part))] if metrics else []


def read_metrics(path: Path) -> dict[str, Any]:
    """Read `metrics.json`.

    Raises:
        BadInput: the file is not a JSON object, or a part of it is of another kind than a comparison writes.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({getattr(error, 'msg', type(error).__name__)})") from None
    if not isinstance(metrics, dict):
        raise BadInput(f"{path}: expected an object, found {type(metrics).__name__}")
    if problem := problem_of_metrics(metrics):
        raise BadInput(f"{path}: {problem}")
    return metrics


def _read_lines(path: Path, missing: list[str], texts: Texts) -> list[dict[str, Any]]:
    """Read the objects of a JSONL file. A last line that a crash has cut off is left out and named.

    Raises:
        BadInput: the file is missing, or another line is not a JSON object.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    *whole, last = path.read_bytes().split(b"\n")
    lines = [_object(path, row, line) for row, line in enumerate(whole, start=1) if line.strip()]
    if last.strip():
        try:
            lines.append(_object(path, len(whole) + 1, last))
        except BadInput:
            missing.append(texts("warning.torn", file=path.name))
    return lines


def _object(path: Path, row: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # of which UnicodeDecodeError is one
        raise BadInput(f"{path}: row {row}: not JSON") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: row {row}: expected an object, found {type(value).__name__}")
    return value


def _read_log(path: Path, missing: list[str], texts: Texts) -> list[dict[str, Any]]:
    lines = _read_lines(path, missing, texts)
    if not lines:
        missing.append(texts("warning.empty", file=path.name))
        return []
    return read_training_log(path, lines)


def _read_trainer_log(
    train_log: Path | None, console: Path | None, missing: list[str], texts: Texts
) -> dict[int, dict[str, float]]:
    """Return step → the trainer's metrics, of its file logger or else of its console; empty where neither is there."""
    steps: dict[int, dict[str, float]] = {}
    files = sorted((train_log.parent / "logs" / "metrics").glob("from_step_*.jsonl")) if train_log else []
    for path in files:
        for line in _read_lines(path, missing, texts):
            if isinstance(line.get("step"), int) and isinstance(line.get("data"), dict):
                steps.setdefault(line["step"], {}).update(line["data"])
    if console is not None:
        if not console.is_file():
            raise BadInput(f"{console}: no such file")
        with console.open(encoding="utf-8", errors="replace") as lines:
            for told in filter(None, map(_STEP.search, lines)):
                steps.setdefault(int(told[1]), {}).update(_numbers(told[2]))
    return steps


def _numbers(text: str) -> dict[str, float]:
    """Read `name:number - name:number`; what is no number is left out."""
    numbers = {}
    for part in text.strip().split(" - "):
        name, _, value = part.rpartition(":")
        with suppress(ValueError):
            numbers[name] = float(_NUMPY.sub(r"\1", value))
    return numbers


def _joined(log: list[dict[str, Any]], own: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Add the trainer's metrics to the steps of the reward's log, which says it where both do."""
    steps = {line["step"]: line for line in log}
    return [{**own.get(step, {}), **steps.get(step, {}), "step": step} for step in sorted({*steps, *own})]


def _holds_something(part: Any) -> bool:
    """Return whether anything of a part was measured."""
    if isinstance(part, Mapping):
        return any(_holds_something(value) for value in part.values())
    if isinstance(part, list):
        return any(_holds_something(value) for value in part)
    return part is not None
