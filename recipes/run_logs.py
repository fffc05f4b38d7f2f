"""Where a run's metric logs go: into `<output>/logs`, so that they outlive a container and continue after a resume.

    logs/wandb_run_id                  the W&B run, drawn at the first start: a resume continues it
    logs/wandb/                        W&B's local files
    logs/tensorboard/                  event files, one a start
    logs/metrics/from_step_000120.jsonl  verl's file logger, one a start: {"step": 121, "data": {...}} a line

verl's file logger empties its file when it opens it, so each start has a file of its own, named after the step it
resumes from. Steps that a start will repeat are removed from the files before: `cat logs/metrics/*.jsonl` holds every
step once, in order.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from reward.records.files import write_atomically

LOGS_FOLDER = "logs"


def logger_environment(output: Path, step: int) -> dict[str, str]:
    """Prepare the log folder of a start that resumes after `step` (0: from the beginning).

    Returns:
        The environment variables that W&B, TensorBoard and verl's file logger read, with absolute paths.
    """
    logs = output.resolve() / LOGS_FOLDER
    metrics = logs / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    _forget_steps_after(metrics, step)
    return {
        "WANDB_RUN_ID": _wandb_run_id(logs / "wandb_run_id"),
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(logs),
        "TENSORBOARD_DIR": str(logs / "tensorboard"),
        "VERL_FILE_LOGGER_PATH": str(metrics / f"from_step_{step:06d}.jsonl"),
    }


def _wandb_run_id(path: Path) -> str:
    if not path.is_file():
        write_atomically(path, [secrets.token_hex(8)])
    return path.read_text(encoding="utf-8").strip()


def _forget_steps_after(metrics: Path, step: int) -> None:
    """Cut earlier starts' files after `step`; a torn last line goes too."""
    for path in metrics.glob("from_step_*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            write_atomically(path, kept)


def _step_of(line: str) -> float:
    """Return the step of a log line; infinity for a torn one."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
