"""A run's metric logs stay in its output folder and go on after a resume, with verl's own loggers."""

import os
import sys
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recipes.checkpoints import resumed_step
from recipes.compose import compose_recipe
from recipes.launch import trainer_environment
from recipes.preflight import CheckedRecipe
from recipes.processes import run_group

# What verl's trainers do with their loggers, a step after the other.
LOG_STEPS = """
import sys
from verl.utils.tracking import Tracking
tracking = Tracking("project", "experiment", sys.argv[4:])
for step in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    tracking.log({"loss": float(sys.argv[3])}, step)
tracking.finish()
"""


def recipe(output: Path, *overrides: str) -> CheckedRecipe:
    config = compose_recipe("sft", ["tenant=fivedoctors", "machine=cpu", f"recipe.output_dir={output}", *overrides])
    return CheckedRecipe(config, 64, {}, finished=False)


def save_checkpoint(output: Path, step: int) -> None:
    (output / f"global_step_{step}").mkdir(parents=True)
    (output / "latest_checkpointed_iteration.txt").write_text(str(step))


def train(output: Path, first: int, last: int, loss: float, *loggers: str) -> None:
    command = [sys.executable, "-c", LOG_STEPS, str(first), str(last), str(loss)]
    command += loggers or ("file", "tensorboard")
    assert run_group(command, trainer_environment(recipe(output)), threading.Event()) == 0


def logged(output: Path) -> list[str]:
    return [line for path in sorted((output / "logs/metrics").iterdir()) for line in path.read_text().splitlines()]


def line(step: int, loss: float) -> str:
    return f'{{"step":{step},"data":{{"loss":{loss}}}}}'


def test_every_step_is_logged_once_over_resumes(tmp_path):
    train(tmp_path, 1, 5, 0.5)  # killed after step 5, last saved after step 3
    save_checkpoint(tmp_path, 3)
    train(tmp_path, 4, 6, 0.25)
    save_checkpoint(tmp_path, 6)
    train(tmp_path, 7, 7, 0.125)
    assert logged(tmp_path) == [
        *(line(step, 0.5) for step in (1, 2, 3)),
        *(line(step, 0.25) for step in (4, 5, 6)),
        line(7, 0.125),
    ]
    events = EventAccumulator(str(tmp_path / "logs/tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        *((step, 0.5) for step in (1, 2, 3)),
        *((step, 0.25) for step in (4, 5, 6)),
        (7, 0.125),
    ]


def test_a_torn_line_goes_and_a_start_from_the_beginning_keeps_nothing(tmp_path):
    train(tmp_path, 1, 3, 0.5)
    save_checkpoint(tmp_path, 2)
    with (tmp_path / "logs/metrics/from_step_000000.jsonl").open("a") as file:
        file.write('{"step": 1, "da')
    trainer_environment(recipe(tmp_path))
    assert logged(tmp_path) == [line(1, 0.5), line(2, 0.5)]
    trainer_environment(recipe(tmp_path, "trainer.resume_mode=disable"))
    assert logged(tmp_path) == []


def test_a_second_start_after_the_same_step_keeps_what_the_first_one_logged_of_it(tmp_path):
    """A start logs the step it resumes from where a kill has prevented that; the next one must not empty its file."""
    train(tmp_path, 1, 2, 0.5)
    save_checkpoint(tmp_path, 3)
    train(tmp_path, 3, 4, 0.25)
    train(tmp_path, 4, 5, 0.125)
    assert logged(tmp_path) == [*(line(step, 0.5) for step in (1, 2)), line(3, 0.25), *(line(s, 0.125) for s in (4, 5))]


def test_the_other_logs_forget_the_steps_that_are_taken_again(tmp_path):
    save_checkpoint(tmp_path, 3)
    names = ("reward_metrics.jsonl", "validation_metrics.jsonl", "health.jsonl", "canary.jsonl")
    for name in names:
        (tmp_path / name).write_text("".join(f'{{"step": {step}, "x": 1}}\n' for step in (1, 3, 4, 5)) + '{"step": 2')
    trainer_environment(recipe(tmp_path))
    for name in names:
        assert (tmp_path / name).read_text() == '{"step": 1, "x": 1}\n{"step": 3, "x": 1}\n', name


@pytest.mark.parametrize(("kept", "logged_until", "stays"), [(3, 2, True), (3, 3, False), (4, 4, False), (2, 1, False)])
def test_what_no_logger_has_stays_for_the_step_resumed_from_alone(tmp_path, kept, logged_until, stays):
    train(tmp_path, 1, logged_until, 0.5)
    save_checkpoint(tmp_path, 3)
    unlogged = tmp_path / "logs/unlogged.json"
    unlogged.write_text(f'{{"step": {kept}, "data": {{}}}}')
    trainer_environment(recipe(tmp_path))
    assert unlogged.exists() == stays


def test_a_resume_continues_the_wandb_run_and_another_run_has_its_own(tmp_path):
    first, resumed, other = (trainer_environment(recipe(tmp_path / name)) for name in ("a", "a", "b"))
    assert first["WANDB_RUN_ID"] == resumed["WANDB_RUN_ID"] != other["WANDB_RUN_ID"]
    assert first["WANDB_RESUME"] == "allow" and first["WANDB_DIR"] == str(tmp_path / "a/logs")


@pytest.mark.full
def test_wandb_writes_the_runs_files_into_its_output_under_one_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path, 1, 2, 0.5, "wandb")
    save_checkpoint(tmp_path, 2)
    train(tmp_path, 3, 4, 0.25, "wandb")
    run_id = (tmp_path / "logs/wandb_run_id").read_text().strip()
    starts = sorted((tmp_path / "logs/wandb").glob("offline-run-*"))
    assert len(starts) == 2 and all((start / f"run-{run_id}.wandb").stat().st_size > 0 for start in starts)


def test_the_users_variables_win(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("TENSORBOARD_DIR", "/somewhere")
    environment = trainer_environment(recipe(tmp_path))
    assert (environment["WANDB_RUN_ID"], environment["TENSORBOARD_DIR"]) == ("mine", "/somewhere")


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        ([], 20),
        (["trainer.resume_mode=disable"], 0),
        (["trainer.resume_mode=resume_path", "trainer.resume_from_path=runs/global_step_10"], 10),
    ],
)
def test_the_step_to_resume_from(tmp_path, overrides, step):
    save_checkpoint(tmp_path, 20)
    assert resumed_step(recipe(tmp_path, *overrides).config) == step
    os.rmdir(tmp_path / "global_step_20")
    assert resumed_step(recipe(tmp_path).config) == 0
