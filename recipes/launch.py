"""Runs one recipe: checks it, trains with verl's own trainer, merges the last checkpoint into `<output>/final`.

    python -m recipes.launch ppo tenant=fivedoctors [hydra overrides]

The checked recipe is written to `<output>/recipe.yaml`, and verl reads that file: it trains what was checked.

Exit codes: 2 the recipe cannot run as configured, 130 the run was interrupted. The run saved itself and stopped, start
it again to resume: 75 the services failed, 76 the judge's budget is spent, 77 a health rule says stop
(`rewriter.health.stop`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from guard.private_files import write_privately
from recipes.compose import recipe_yaml
from recipes.preflight import CheckedRecipe, check_recipe, parse_arguments
from recipes.run_logs import logger_environment
from recipes.run_record import CHECKPOINT_FILE, RECORD_FILE
from reward.records.files import BadInput, write_atomically

RECIPE_FILE = "recipe.yaml"
STOP_FILE = "stopped.json"  # written by reward.verl_sampler
EXIT_CODES = {"services_unavailable": 75, "budget_spent": 76, "unhealthy": 77}
INTERRUPTED = 130
GRACE_SECONDS = 30.0  # torchrun takes its time to end its workers
NEVER = 10**9  # steps


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _, name, overrides = parse_arguments(parser, argv)
    write_privately()  # what this run and its trainer write is its owner's alone
    stop = threading.Event()
    try:
        recipe = check_recipe(name, overrides)
        print(recipe.summary, file=sys.stderr)
        if recipe.finished:
            return 0
        if recipe.refusal:
            raise BadInput(recipe.refusal)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        prepare_output(recipe)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return train_and_merge(recipe, stop)


def prepare_output(recipe: CheckedRecipe) -> None:
    """Write what the run is made of, and clear what an earlier start left.

    Raises:
        BadInput: a file cannot be written.
    """
    config, output = recipe.config, recipe.output
    (output / STOP_FILE).unlink(missing_ok=True)
    if config.recipe.trainer == "sft":
        forget_finished_epoch(config, recipe.steps_per_epoch)
    elif config.trainer.save_freq == -1:
        count_saves_in_epochs(config, recipe.steps_per_epoch)
    write_atomically(output / RECORD_FILE, [json.dumps(recipe.record)])
    # Hydra's own log goes beside it; the copies of the configuration that it would write say no more than this file.
    hydra = OmegaConf.create({"hydra": {"run": {"dir": str(output / "hydra")}, "output_subdir": None}})
    write_atomically(output / RECIPE_FILE, [OmegaConf.to_yaml(hydra) + recipe_yaml(config)])


def count_saves_in_epochs(config: DictConfig, steps_per_epoch: int) -> None:
    """Turn `recipe.rl.save_every_epochs` into verl's steps; the last step is saved only if verl saves at all."""
    every = config.recipe.rl.save_every_epochs
    config.trainer.save_freq = every * steps_per_epoch if every else NEVER
    if every and config.trainer.test_freq == -1:
        # Validated whenever saved; a tiny model is evaluated afterwards instead.
        config.trainer.test_freq = config.trainer.save_freq


def forget_finished_epoch(config: DictConfig, steps_per_epoch: int) -> None:
    """Remove the data loader's state from a checkpoint to resume that ends an epoch.

    verl's SFT trainer would take up the exhausted loader and skip the whole next epoch; without that state it starts
    the epoch afresh.
    """
    step = resumed_step(config)
    if step and step % steps_per_epoch == 0:
        for state in (Path(config.trainer.default_local_dir) / f"global_step_{step}").glob("data_*.pt"):
            state.unlink()


def resumed_step(config: DictConfig) -> int:
    """Return the step after which verl will resume; 0 where it starts from the beginning."""
    trainer = config.trainer
    if trainer.resume_mode == "disable":
        return 0
    if trainer.resume_mode == "resume_path":
        return int(str(trainer.resume_from_path).rpartition("global_step_")[2])
    output = Path(trainer.default_local_dir)
    try:
        step = int((output / CHECKPOINT_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0
    return step if (output / f"global_step_{step}").is_dir() else 0


def train_and_merge(recipe: CheckedRecipe, stop: threading.Event) -> int:
    """The exit code of the whole run."""
    output, final = recipe.output, recipe.output / "final"
    environment = trainer_environment(recipe)
    status = run_group(trainer_command(recipe), environment, stop)
    if status == INTERRUPTED:
        return status
    if (output / STOP_FILE).is_file():
        stopped = json.loads((output / STOP_FILE).read_text(encoding="utf-8"))
        print(f"stopped: {stopped['message']}", file=sys.stderr)
        return EXIT_CODES[stopped["reason"]]
    if status == 0:
        merge = [sys.executable, "-m", "export.merge", "--checkpoint", str(output), "--out", str(final)]
        status = run_group(merge, environment, stop)
    if status == 0:
        write_atomically(final / RECORD_FILE, [json.dumps(recipe.record)])
    return status


def trainer_environment(recipe: CheckedRecipe) -> dict[str, str]:
    """The variables of the trainer: where its logs go, unless the user says otherwise; then the machine's."""
    logs = logger_environment(recipe.output, resumed_step(recipe.config))
    machine = {key: str(value) for key, value in recipe.config.recipe.machine.env.items()}
    return {**logs, **os.environ, **machine}


def trainer_command(recipe: CheckedRecipe) -> list[str]:
    """verl's own trainer on the written recipe."""
    if recipe.config.recipe.trainer == "sft":
        devices = recipe.config.trainer.n_gpus_per_node
        module = [
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={devices}",
            "-m",
            "verl.trainer.sft_trainer",
        ]
    else:
        module = ["verl.trainer.main_ppo"]
    config = ["--config-path", str(recipe.output.resolve()), "--config-name", Path(RECIPE_FILE).stem]
    return [sys.executable, "-m", *module, *config]


def run_group(command: list[str], environment: dict[str, str], stop: threading.Event) -> int:
    """Run a command in a process group of its own; once `stop` is set, end all of the group.

    Returns:
        The command's exit code (128 + n after signal n), or 130 when stopped.
    """
    process = subprocess.Popen(command, env=environment, process_group=0)
    while process.poll() is None and not stop.wait(0.2):
        pass
    if not stop.is_set():
        return process.returncode if process.returncode >= 0 else 128 - process.returncode
    # torchrun's workers live in sessions of their own: only torchrun itself can end them.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
