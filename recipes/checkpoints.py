"""verl's checkpoints in a run's folder: `global_step_N`, whole once `latest_checkpointed_iteration.txt` names it.

verl writes the policy, then the critic, then the data loader's state, then that file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from reward.records.files import write_atomically

TRACKER_FILE = "latest_checkpointed_iteration.txt"


def step_folder(run: Path, step: int) -> Path:
    return run / f"global_step_{step}"


def saved_steps(run: Path) -> list[int]:
    """Return the steps that have a folder, ascending; weights may be gone (`holds_weights`)."""
    numbers = (path.name.removeprefix("global_step_") for path in run.glob("global_step_*"))
    return sorted(int(number) for number in numbers if number.isdigit())


def holds_weights(checkpoint: Path) -> bool:
    """Return whether an RL checkpoint holds the policy's shards, as `export.merge` needs them, written to the end."""
    return (checkpoint / "actor" / "fsdp_config.json").is_file() and (checkpoint / "data.pt").is_file()


def is_whole(checkpoint: Path) -> bool:
    """Return whether verl wrote a checkpoint to its end: the data loader's state comes last."""
    is_sft = (checkpoint / "fsdp_config.json").is_file() and any(checkpoint.glob("data_*.pt"))
    return is_sft or holds_weights(checkpoint)


def tracked_step(run: Path) -> int | None:
    """Return the step that verl will resume from; None where the file that says so is missing or torn."""
    try:
        return int((run / TRACKER_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def resumed_step(config: DictConfig) -> int:
    """Return the step after which verl will resume; 0 where it starts from the beginning."""
    trainer = config.trainer
    if trainer.resume_mode == "disable":
        return 0
    if trainer.resume_mode == "resume_path":
        return int(str(trainer.resume_from_path).rpartition("global_step_")[2])
    run = Path(trainer.default_local_dir)
    step = tracked_step(run)
    return step if step and step_folder(run, step).is_dir() else 0


def mend_tracker(run: Path) -> None:
    """Name the newest whole checkpoint in a tracker file that a kill has torn or prevented.

    verl writes that file after the first checkpoint, its RL trainer not in one go, and does not start on a torn one.
    """
    if tracked_step(run) is not None:
        return
    whole = [step for step in saved_steps(run) if is_whole(step_folder(run, step))]
    if whole:
        write_atomically(run / TRACKER_FILE, [str(whole[-1])])
    else:
        (run / TRACKER_FILE).unlink(missing_ok=True)


def drop_steps_after(run: Path, step: int) -> list[int]:
    """Remove the checkpoints of steps that a run will take again, and return them.

    verl would write into their files, and so into hard links to them.
    """
    later = [saved for saved in saved_steps(run) if saved > step]
    for saved in later:
        shutil.rmtree(step_folder(run, saved))
    return later


def drop_old_steps(run: Path, kept: int | None) -> None:
    """Remove all but the newest `kept` checkpoints (None: none); verl itself forgets those of earlier starts."""
    for step in saved_steps(run)[: -kept if kept else 0]:
        shutil.rmtree(step_folder(run, step))


def drop_old_weights(run: Path, model: str, kept: int | None) -> None:
    """Remove a model's weights from all but the newest `kept` RL checkpoints that hold them (None: none).

    Args:
        model: `actor` or `critic`.
    """
    holders = [folder for step in saved_steps(run) if (folder := step_folder(run, step) / model).is_dir()]
    for folder in holders[: -kept if kept else 0]:
        shutil.rmtree(folder)
