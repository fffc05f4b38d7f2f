"""The trainer's `reward_metrics.jsonl`: one JSON object a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reward.records.files import BadInput, read_jsonl

MOST = 1e100  # a number further from 0 has no place in a curve


def read_training_log(path: Path, lines: Iterable[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Read the steps in ascending order; of a step written twice (a resumed run) the later line counts.

    Args:
        lines: of the file, where they are read already.

    Raises:
        BadInput: the file is missing or empty, or a line lacks an integer `step`.
    """
    steps: dict[int, dict[str, Any]] = {}
    for row, line in read_jsonl(path) if lines is None else enumerate(lines, start=1):
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise BadInput(f"{path}: row {row}: step: expected an integer, found {step!r}")
        steps[step] = line
    if not steps:
        raise BadInput(f"{path}: holds no step")
    return [steps[step] for step in sorted(steps)]


def series(log: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the metric `name`, where it was logged as a number that can be drawn."""
    points = [(line["step"], float(line[name])) for line in log if is_drawable(line.get(name))]
    return [step for step, _ in points], [value for _, value in points]


def is_drawable(value: object) -> bool:
    """Return whether a logged value is a finite number; what a diverged training logs is none."""
    return isinstance(value, int | float) and abs(value) <= MOST


def beyond(log: Iterable[dict[str, Any]]) -> Counter[str]:
    """Count the logged numbers of each metric that cannot be drawn."""
    return Counter(
        name
        for line in log
        for name, value in line.items()
        if isinstance(value, int | float) and not is_drawable(value)
    )


def reward_change(log: list[dict[str, Any]]) -> dict[str, float | int] | None:
    """Return the mean `avg_reward` of the first and last tenth of the steps; None when none was logged."""
    _, rewards = series(log, "avg_reward")
    if not rewards:
        return None
    tenth = max(1, len(rewards) // 10)
    return {"first": sum(rewards[:tenth]) / tenth, "last": sum(rewards[-tenth:]) / tenth, "steps": len(log)}


def judge_took_part(log: list[dict[str, Any]]) -> bool:
    """Return whether an LLM judge's verdict weighed in the reward of any step."""
    return any(weight > 0 for weight in series(log, "weight_judge")[1])
