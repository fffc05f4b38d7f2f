"""Runs one recipe: checks it, trains with verl's own trainer, merges the best checkpoint into `<output>/final`.

    python -m recipes.launch ppo tenant=fivedoctors [hydra overrides]

`--dry-run` prints the resolved recipe and what its reward gives to some made-up completions, and starts nothing.

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
import sys
import threading
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from guard.private_files import write_privately
from recipes.best_checkpoint import forget_best_after, keep_best, read_best, validated_steps
from recipes.checkpoints import drop_old_steps, drop_steps_after, mend_tracker, resumed_step, step_folder
from recipes.cluster import hand_to_workers, joins_cluster
from recipes.compose import plain, recipe_yaml
from recipes.dry_run import dry_run
from recipes.preflight import CheckedRecipe, check_recipe, parse_arguments
from recipes.processes import INTERRUPTED, adopt_orphans, end_descendants, hold, run_group
from recipes.retriever_record import record_retriever
from recipes.run_logs import cut_logs, logger_environment
from recipes.run_record import RECORD_FILE
from reward.records.files import BadInput, write_atomically
from reward.records.run_files import STOP_FILE
from reward.settings.recipe import parse_settings

RECIPE_FILE = "recipe.yaml"
EXIT_CODES = {"services_unavailable": 75, "budget_spent": 76, "unhealthy": 77}
NEVER = 10**9  # steps


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and its reward at work")
    args, name, overrides = parse_arguments(parser, argv)
    write_privately()  # what this run and its trainer write is its owner's alone
    stop = threading.Event()
    try:
        if args.dry_run:
            print(dry_run(name, overrides))
            return 0
        recipe = check_recipe(name, overrides)
        print(recipe.summary, file=sys.stderr)
        if recipe.finished:
            return 0
        if recipe.refusals:
            print("\n".join(f"error: {line}" for line in recipe.refusals), file=sys.stderr)
            return 2
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        with hold(recipe.output) as claim:
            prepare_output(recipe)
            return train_and_merge(recipe, stop, claim.fileno())
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def prepare_output(recipe: CheckedRecipe) -> None:
    """Write what the run is made of, and clear what an earlier start left.

    Raises:
        BadInput: a file cannot be written.
    """
    config, output = recipe.config, recipe.output
    if config.recipe.trainer == "rl" and joins_cluster():
        hand_to_workers(config, own_variables(recipe))
    (output / STOP_FILE).unlink(missing_ok=True)
    mend_tracker(output)
    step = resumed_step(config)
    cut_logs(output, step)
    for later in drop_steps_after(output, step):
        print(f"checkpoints: step {later} is taken again, its folder is removed", file=sys.stderr)
    if config.recipe.trainer == "sft":
        forget_finished_epoch(config, recipe.steps_per_epoch)
        drop_old_steps(output, config.trainer.max_ckpt_to_keep)
    else:
        if (lost := forget_best_after(output, step)) is not None:
            print(f"checkpoints: step {lost}, the best so far, is taken again and no longer kept", file=sys.stderr)
        set_frequencies(config, recipe.steps_per_epoch)
        make_up_validation(config, recipe, step)
    write_atomically(output / RECORD_FILE, [json.dumps(recipe.record)])
    note_retriever(recipe, step)
    # Hydra's own log goes beside it; the copies of the configuration that it would write say no more than this file.
    hydra = OmegaConf.create({"hydra": {"run": {"dir": str(output / "hydra")}, "output_subdir": None}})
    write_atomically(output / RECIPE_FILE, [OmegaConf.to_yaml(hydra) + recipe_yaml(config)])


def note_retriever(recipe: CheckedRecipe, step: int) -> None:
    """Record which retriever the run has met, where its reward asks one."""
    config = recipe.config
    if config.recipe.trainer == "rl" and config.rewriter.task != "medical":
        record_retriever(recipe.output, parse_settings(plain(config.rewriter), "rewriter").tenant, step)


def set_frequencies(config: DictConfig, steps_per_epoch: int) -> None:
    """Turn `recipe.rl.save_every_epochs` and `validate_every_epochs` into verl's steps, where the user sets none.

    The last step is saved only if verl saves at all.
    """
    rl, trainer = config.recipe.rl, config.trainer
    if trainer.save_freq == -1:
        trainer.save_freq = rl.save_every_epochs * steps_per_epoch if rl.save_every_epochs else NEVER
        if trainer.test_freq == -1 and rl.validate_every_epochs:
            trainer.test_freq = rl.validate_every_epochs * steps_per_epoch
    elif trainer.test_freq == -1 and rl.validate_every_epochs:
        trainer.test_freq = trainer.save_freq  # a step that is saved and not validated can never be the best


def make_up_validation(config: DictConfig, recipe: CheckedRecipe, step: int) -> None:
    """Validate the step that a run resumes after if a kill has prevented that, and not if it is on record."""
    trainer = config.trainer
    recorded = step in validated_steps(recipe.output)
    if recorded or step == 0:
        trainer.val_before_train = trainer.val_before_train and not recorded
    else:
        last = trainer.total_training_steps or trainer.total_epochs * recipe.steps_per_epoch
        trainer.val_before_train = trainer.test_freq > 0 and (step % trainer.test_freq == 0 or step == last)


def forget_finished_epoch(config: DictConfig, steps_per_epoch: int) -> None:
    """Remove the data loader's state from a checkpoint to resume that ends an epoch.

    verl's SFT trainer would take up the exhausted loader and skip the whole next epoch; without that state it starts
    the epoch afresh.
    """
    step = resumed_step(config)
    if step and step % steps_per_epoch == 0:
        for state in step_folder(Path(config.trainer.default_local_dir), step).glob("data_*.pt"):
            state.unlink()


def train_and_merge(recipe: CheckedRecipe, stop: threading.Event, claim: int) -> int:
    """The exit code of the whole run.

    Args:
        claim: descriptor of the file that holds the output folder.
    """
    output, final = recipe.output, recipe.output / "final"
    environment = trainer_environment(recipe)
    adopt_orphans()
    try:
        status = run_group(trainer_command(recipe), environment, stop, (claim,))
    finally:
        end_descendants()
    if status == INTERRUPTED:
        return status
    note_retriever(recipe, resumed_step(recipe.config))
    if (output / STOP_FILE).is_file():
        stopped = json.loads((output / STOP_FILE).read_text(encoding="utf-8"))
        print(f"stopped: {stopped['message']}", file=sys.stderr)
        return EXIT_CODES[stopped["reason"]]
    if status == 0:
        if recipe.config.recipe.trainer == "rl":
            print(f"final: {choose_final(recipe)}", file=sys.stderr)
        merge = [sys.executable, "-m", "export.merge", "--checkpoint", str(output), "--out", str(final)]
        status = run_group(merge, environment, stop)
    if status == 0:
        write_atomically(final / RECORD_FILE, [json.dumps(recipe.record)])
    return status


def choose_final(recipe: CheckedRecipe) -> str:
    """Compare the last validation too, and say which step `final` will hold: the best, or the last without a best."""
    keep_best(recipe.output, parse_settings(plain(recipe.config.rewriter), "rewriter"), recipe.record["config_sha256"])
    best = read_best(recipe.output)
    if best is None:
        return f"step {resumed_step(recipe.config)}, the last one (no saved step has a validation that counts)"
    words = f"step {best['step']}, the best by {best['metric']} ({best['value']:.4g})"
    if unsaved := best["better_unsaved"]:
        words += f"; step {unsaved['step']} had {unsaved['value']:.4g} and was not saved"
    return words


def trainer_environment(recipe: CheckedRecipe) -> dict[str, str]:
    """The variables of the trainer: the user's, and ours."""
    return {**os.environ, **own_variables(recipe)}


def own_variables(recipe: CheckedRecipe) -> dict[str, str]:
    """Where the trainer's logs go, unless the user says otherwise; then the machine's."""
    logs = logger_environment(recipe.output, resumed_step(recipe.config))
    machine = {key: str(value) for key, value in recipe.config.recipe.machine.env.items()}
    return {**{key: value for key, value in logs.items() if key not in os.environ}, **machine}


def trainer_command(recipe: CheckedRecipe) -> list[str]:
    """verl's own trainer on the written recipe.

    On a CPU, where a run's many imports take most of its start, the processes of RL are forks of one that has imported.
    """
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
        forks = recipe.config.recipe.machine.device == "cpu" and not joins_cluster()
        module = [*(["verl_cpu.fork_server"] if forks else []), "verl.trainer.main_ppo"]
    config = ["--config-path", str(recipe.output.resolve()), "--config-name", Path(RECIPE_FILE).stem]
    return [sys.executable, "-m", *module, *config]


if __name__ == "__main__":
    raise SystemExit(main())
