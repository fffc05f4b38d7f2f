"""Where a run's metric logs go: into its output folder, so that they outlive a container and continue after a resume.

    logs/wandb_run_id                  the W&B run, drawn at the first start: a resume continues it
    logs/wandb/                        W&B's local files
    logs/tensorboard/                  event files, one a start
    logs/metrics/from_step_000120.jsonl  verl's file logger, one a start: {"step": 121, "data": {...}} a line

verl's file logger empties its file when it opens it, so each start has a file of its own, named after the step it
resumes from. What steps that a start takes again have logged goes before, from these files and from the logs of
`reward.records.run_files`, and TensorBoard is told to hide it: `cat logs/metrics/*.jsonl` holds every step once, in
order (SFT logs a step's validation on a line of its own). W&B takes no step twice: of a repeated one it shows the first
attempt.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

from reward.records.files import write_atomically
from reward.records.run_files import CANARY_FILE, HEALTH_FILE, METRICS_FILE, UNLOGGED_FILE, VALIDATION_FILE

LOGS_FOLDER = "logs"


def logger_environment(output: Path, step: int) -> dict[str, str]:
    """Prepare the logs for a start that resumes after `step` (0: from the beginning).

    Returns:
        The environment variables that W&B, TensorBoard and verl's file logger read, with absolute paths.
    """
    logs = output.resolve() / LOGS_FOLDER
    metrics, tensorboard = logs / "metrics", logs / "tensorboard"
    metrics.mkdir(parents=True, exist_ok=True)
    cut_logs(output, step)
    _hide_steps_after(tensorboard, step)
    return {
        "WANDB_RUN_ID": _wandb_run_id(logs / "wandb_run_id"),
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(logs),
        "TENSORBOARD_DIR": str(tensorboard),
        "VERL_FILE_LOGGER_PATH": str(_own_file(metrics, step)),
    }


def cut_logs(output: Path, step: int) -> None:
    """Remove from the run's own logs what is of later steps than `step`, and lines that a kill has torn."""
    files = sorted((output / LOGS_FOLDER / "metrics").glob("from_step_*.jsonl"))
    for path in (*files, *(output / name for name in (METRICS_FILE, VALIDATION_FILE, HEALTH_FILE, CANARY_FILE))):
        _forget_steps_after(path, step)
    _forget_unlogged(output / UNLOGGED_FILE, step, files)


def _wandb_run_id(path: Path) -> str:
    if not path.is_file():
        write_atomically(path, [secrets.token_hex(8)])
    return path.read_text(encoding="utf-8").strip()


def _own_file(metrics: Path, step: int) -> Path:
    """Name the file of this start. One of that name is empty, or holds what was logged of `step` alone: that stays."""
    number, path = 0, metrics / f"from_step_{step:06d}.jsonl"
    while path.is_file() and path.stat().st_size:
        number += 1
        path = metrics / f"from_step_{step:06d}_{number}.jsonl"
    return path


def _forget_steps_after(path: Path, step: int) -> None:
    """Cut a log of one line a step after `step`; a torn last line goes too."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    if kept != lines:
        write_atomically(path, kept)


def _forget_unlogged(path: Path, step: int, files: list[Path]) -> None:
    """Remove what is kept for the loggers, unless it is of the step resumed from and missing in the file logger's."""
    if path.is_file():
        lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
        if _step_of(path.read_text(encoding="utf-8")) != step or any(_step_of(line) == step for line in lines):
            path.unlink()


def _hide_steps_after(tensorboard: Path, step: int) -> None:
    """Write the event by which TensorBoard forgets what earlier starts logged after `step`."""
    if not any(tensorboard.glob("events.out.tfevents.*")):
        return
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # a second of import, for a resume alone
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tensorboard))
    restart = SessionLog(status=SessionLog.START)
    writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=restart))
    writer.close()


def _step_of(line: str) -> float:
    """Return the step of a log line; infinity for a torn one."""
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return float("inf")
