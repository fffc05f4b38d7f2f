"""The launcher: what it writes before training, how it runs and ends the trainer's processes."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
import yaml
from hydra import compose, initialize_config_dir

from recipes import launch
from recipes.compose import compose_recipe
from recipes.launch import EXIT_CODES, prepare_output, trainer_command
from recipes.preflight import CheckedRecipe
from recipes.processes import INTERRUPTED, run_group
from reward.verl_sampler import StopReason


def checked(name: str, folder, *overrides: str, rows: int) -> CheckedRecipe:
    config = compose_recipe(name, ["tenant=fivedoctors", f"recipe.output_dir={folder}", *overrides])
    return CheckedRecipe(config, rows, {"recipe": name}, finished=False)


def test_the_trainer_reads_what_was_checked(tmp_path):
    recipe = checked("ppo", tmp_path, "recipe.rl.actor_lr=3e-7", rows=800)
    prepare_output(recipe)
    # As verl's own `hydra.main` reads it: the folder as the only search path.
    with initialize_config_dir(str(tmp_path), version_base=None):
        read = compose("recipe")
    assert read == recipe.config and read.actor_rollout_ref.actor.optim.lr == 3e-7
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["hydra"]["run"]["dir"] == str(tmp_path / "hydra")
    command = trainer_command(recipe)
    assert command[-4:] == ["--config-path", str(tmp_path), "--config-name", "recipe"]


@pytest.mark.parametrize(
    ("name", "machine", "address", "forks"),
    [
        ("ppo", "cpu", None, True),
        ("grpo", "cpu", None, True),
        ("grpo", "gpu4", None, False),
        ("grpo", "cpu", "auto", False),  # the workers of a cluster are other processes' children
        ("sft", "cpu", None, False),
    ],
)
def test_on_a_cpu_that_is_its_own_the_processes_of_rl_are_forks(tmp_path, monkeypatch, name, machine, address, forks):
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    command = trainer_command(checked(name, tmp_path, f"machine={machine}", rows=800))
    assert ("verl_cpu.fork_server" in command) == forks
    if forks:
        assert command[1:4] == ["-m", "verl_cpu.fork_server", "verl.trainer.main_ppo"]


def test_checkpoints_every_second_epoch_become_steps(tmp_path):
    recipe = checked("ppo", tmp_path, rows=800)
    prepare_output(recipe)
    assert (recipe.config.trainer.save_freq, recipe.config.trainer.test_freq) == (100, 50)


def test_a_tiny_run_saves_its_last_step_and_validates_afterwards(tmp_path):
    recipe = checked("grpo", tmp_path, "machine=cpu", "model=tiny", rows=800)
    prepare_output(recipe)
    assert recipe.config.trainer.save_freq > 10**6 and recipe.config.trainer.test_freq == -1


def test_a_save_frequency_of_the_user_stays(tmp_path):
    recipe = checked("ppo", tmp_path, "trainer.save_freq=25", rows=800)
    prepare_output(recipe)
    assert (recipe.config.trainer.save_freq, recipe.config.trainer.test_freq) == (25, 25)
    recipe = checked("ppo", tmp_path, "trainer.save_freq=25", "trainer.test_freq=5", rows=800)
    prepare_output(recipe)
    assert (recipe.config.trainer.save_freq, recipe.config.trainer.test_freq) == (25, 5)


def rl_checkpoint(run, step: int) -> None:
    (run / f"global_step_{step}" / "actor").mkdir(parents=True)
    (run / f"global_step_{step}" / "actor" / "fsdp_config.json").write_text("{}")
    (run / f"global_step_{step}" / "data.pt").touch()
    (run / "latest_checkpointed_iteration.txt").write_text(str(step))


@pytest.mark.parametrize(
    ("overrides", "step", "recorded", "validates"),
    [
        ([], 0, [], True),  # step 0 is what all others are compared with
        ([], 0, [0], False),  # killed before the first save: it is on record
        ([], 100, [0, 50, 100], False),
        ([], 100, [0, 50], True),  # killed between save and validation
        ([], 75, [0, 50], False),  # saved by a stop, between two validations
        (["trainer.total_training_steps=75"], 75, [0, 50], True),  # the last step
        (["machine=cpu", "model=tiny"], 0, [], False),
        (["machine=cpu", "model=tiny", "trainer.test_freq=5"], 10, [5], True),
        (["machine=cpu", "model=tiny"], 10, [], False),
    ],
)
def test_a_step_is_validated_once_over_resumes(tmp_path, overrides, step, recorded, validates):
    if step:
        rl_checkpoint(tmp_path, step)
    lines = (f'{{"step": {one}, "abstained": 0.0}}\n' for one in recorded)
    (tmp_path / "validation_metrics.jsonl").write_text("".join(lines) + '{"step": 1')  # torn by a kill
    recipe = checked("ppo", tmp_path, *overrides, rows=800)
    prepare_output(recipe)
    assert recipe.config.trainer.val_before_train == validates


def test_checkpoints_of_steps_that_are_taken_again_go_and_are_named(tmp_path, capsys):
    for step in (50, 100):
        rl_checkpoint(tmp_path, step)
    prepare_output(checked("ppo", tmp_path, rows=800))
    assert capsys.readouterr().err == ""
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("50")
    prepare_output(checked("ppo", tmp_path, rows=800))
    assert "step 100" in capsys.readouterr().err and not (tmp_path / "global_step_100").exists()


def test_distillation_keeps_no_checkpoints_of_earlier_starts_beyond_its_number(tmp_path):
    for step in (10, 20, 30):
        (tmp_path / f"global_step_{step}").mkdir()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("30")
    prepare_output(checked("sft", tmp_path, "machine=gpu1", rows=165))
    assert sorted(path.name for path in tmp_path.glob("global_step_*")) == ["global_step_20", "global_step_30"]


@pytest.mark.parametrize(("step", "kept"), [(10, False), (20, False), (15, True)])
def test_an_sft_checkpoint_at_an_epochs_end_resumes_without_the_exhausted_loader(tmp_path, step, kept):
    recipe = checked("sft", tmp_path, "machine=gpu1", rows=165)  # 10 steps of 16 and a rest
    state = tmp_path / f"global_step_{step}" / "data_0.pt"
    state.parent.mkdir()
    state.touch()
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(str(step))
    prepare_output(recipe)
    assert state.exists() == kept


def test_every_reason_to_stop_has_its_exit_code():
    assert set(EXIT_CODES) == set(StopReason)
    assert sorted(EXIT_CODES.values()) == [75, 76, 77]


def test_a_command_ends_with_its_own_code():
    def ended(code: str) -> int:
        return run_group([sys.executable, "-c", code], dict(os.environ), threading.Event())

    assert ended("pass") == 0
    assert ended("raise SystemExit(3)") == 3
    assert ended("import os; os.kill(os.getpid(), 15)") == 143


def test_a_stop_ends_every_process_of_the_group(tmp_path):
    """One that ignores SIGTERM too, once the leader is gone."""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    leader = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {stubborn!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    stop = threading.Event()

    def stop_when_started() -> None:
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=stop_when_started).start()
    assert run_group([sys.executable, "-c", leader], dict(os.environ), stop) == INTERRUPTED
    child = int((tmp_path / "pid").read_text())
    if psutil.pid_exists(child):
        psutil.Process(child).wait(timeout=10)


def test_a_refused_recipe_leaves_with_2_and_a_line_for_each_reason(tmp_path):
    script = launch.Path(launch.__file__).parent / "fivedoctors_rloo.sh"
    command = ["bash", str(script), f"recipe.data_dir={tmp_path}", f"recipe.output_dir={tmp_path / 'out'}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stdout == ""
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error: data: ")]) == 1
    assert not (tmp_path / "out").exists()
