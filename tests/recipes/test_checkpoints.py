"""verl's checkpoints after a kill: which step a run resumes from, and what is cleared away."""

from pathlib import Path

import pytest

from recipes.checkpoints import (
    drop_old_steps,
    drop_old_weights,
    drop_steps_after,
    mend_tracker,
    saved_steps,
    tracked_step,
)


def save(run: Path, *steps: int, whole: bool = True) -> None:
    for step in steps:
        for model in ("actor", "critic"):
            (run / f"global_step_{step}" / model).mkdir(parents=True)
            (run / f"global_step_{step}" / model / "fsdp_config.json").write_text("{}")
        if whole:
            (run / f"global_step_{step}" / "data.pt").touch()


def holders(run: Path, model: str) -> list[int]:
    return [step for step in saved_steps(run) if (run / f"global_step_{step}" / model).is_dir()]


@pytest.mark.parametrize("torn", ["", " ", "2\x00", "step"])
def test_a_torn_tracker_names_the_newest_whole_checkpoint(tmp_path, torn):
    save(tmp_path, 5, 100)
    save(tmp_path, 120, whole=False)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(torn)
    mend_tracker(tmp_path)
    assert tracked_step(tmp_path) == 100


def test_a_torn_tracker_without_a_checkpoint_goes_and_a_good_one_stays(tmp_path):
    tracker = tmp_path / "latest_checkpointed_iteration.txt"
    tracker.write_text("")
    mend_tracker(tmp_path)
    assert not tracker.exists()
    save(tmp_path, 5, whole=False)
    mend_tracker(tmp_path)
    assert not tracker.exists()
    save(tmp_path, 10)
    mend_tracker(tmp_path)
    assert tracked_step(tmp_path) == 10
    tracker.write_text("5")
    mend_tracker(tmp_path)
    assert tracked_step(tmp_path) == 5


def test_a_missing_tracker_names_the_newest_whole_sft_checkpoint(tmp_path):
    for step in (5, 10):
        (tmp_path / f"global_step_{step}").mkdir()
        (tmp_path / f"global_step_{step}" / "fsdp_config.json").write_text("{}")
    (tmp_path / "global_step_5" / "data_0.pt").touch()
    mend_tracker(tmp_path)
    assert tracked_step(tmp_path) == 5


def test_steps_that_are_taken_again_lose_their_folders(tmp_path):
    save(tmp_path, 5, 10, 15)
    (tmp_path / "global_step_old").mkdir()  # the user's
    assert drop_steps_after(tmp_path, 5) == [10, 15]
    assert saved_steps(tmp_path) == [5] and (tmp_path / "global_step_old").is_dir()
    assert drop_steps_after(tmp_path, 5) == []


def test_old_weights_go_by_model_and_none_keeps_all(tmp_path):
    save(tmp_path, 5, 10, 15)
    drop_old_weights(tmp_path, "actor", None)
    drop_old_weights(tmp_path, "actor", 5)
    assert holders(tmp_path, "actor") == [5, 10, 15]
    drop_old_weights(tmp_path, "actor", 2)
    drop_old_weights(tmp_path, "critic", 1)
    assert holders(tmp_path, "actor") == [10, 15] and holders(tmp_path, "critic") == [15]
    assert (tmp_path / "global_step_5" / "data.pt").is_file()


def test_old_steps_go_whole(tmp_path):
    save(tmp_path, 5, 10, 15)
    drop_old_steps(tmp_path, None)
    assert saved_steps(tmp_path) == [5, 10, 15]
    drop_old_steps(tmp_path, 2)
    assert saved_steps(tmp_path) == [10, 15]
