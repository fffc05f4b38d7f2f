"""Names RL checkpoints by their epoch: `checkpoint_epochN` links to the `global_step_M` saved at that epoch's end."""

from __future__ import annotations

from pathlib import Path

from recipes.checkpoints import holds_weights


def link_epoch(checkpoint: Path, step: int, steps_per_epoch: int) -> None:
    """Link `checkpoint` when `step` ends an epoch, and drop the links whose checkpoint verl has removed.

    verl removes the weights of an old checkpoint and leaves its folder with the data loader's state.
    """
    output = checkpoint.parent
    for link in output.glob("checkpoint_epoch*"):
        if link.is_symlink() and not holds_weights(link):
            link.unlink()
    if step % steps_per_epoch or not holds_weights(checkpoint):
        return
    link = output / f"checkpoint_epoch{step // steps_per_epoch}"
    if link.exists() and not link.is_symlink():
        return  # a folder of the user's
    # Made beside it and renamed: a reader finds the old target or the new one.
    partial = output / f".{link.name}.partial"
    partial.unlink(missing_ok=True)
    partial.symlink_to(checkpoint.name)
    partial.replace(link)
