"""Checks a recipe before a trainer starts, so that a mistake costs seconds and one clear line, not a queue slot.

    python -m recipes.preflight ppo tenant=fivedoctors [hydra overrides]

prints a table: what the run is made of, the memory plan, what was found of machine, data and services. What is
missing is a line, and the rest is still looked at. Exit code 2 where a line is BAD, or with one line on what makes the
recipe itself impossible. `--show` prints the whole composed recipe as YAML and checks its settings alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from recipes.checks.finding import Finding, bad_input_as, ok, refusals, table, warning
from recipes.checks.machine import nearest_folder
from recipes.checks.nodes import check_nodes
from recipes.checks.prompts import read_prompts
from recipes.checks.report import data_findings, machine_findings, sampling_findings, service_findings
from recipes.checks.settings import (
    check_batches,
    check_frequencies,
    check_frozen_layers,
    check_precision,
    check_reward_workers,
    check_settings,
    looks_local,
)
from recipes.checks.teacher import teacher_findings
from recipes.compose import compose_recipe, recipe_yaml
from recipes.model_facts import facts_of
from recipes.retrieval_check import check_rag, first_sample, samples_of
from recipes.run_record import check_output, run_record
from reward.records.files import BadInput
from reward.rollouts.reranker_pin import has_hash
from reward.settings.recipe import RewriterSettings

# Before a model's checkpoints are counted (`recipes.checks.machine`).
FREE_DISK_GB = 1


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe that can run unless there are `refusals`.

    Args:
        rows: of the training file; 0 without one.
        record: what the run is made of (`recipes.run_record`); empty where a part is missing.
        finished: whether this very run is finished in its output folder.
        findings: what was looked at, in the order of the table.
    """

    config: DictConfig
    rows: int
    record: dict[str, Any]
    finished: bool
    findings: Sequence[Finding] = ()

    @property
    def summary(self) -> str:
        return table(self.findings)

    @property
    def refusals(self) -> list[str]:
        """What forbids the run, a line each; empty when nothing does."""
        return refusals(self.findings)

    @property
    def output(self) -> Path:
        return Path(self.config.trainer.default_local_dir)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.config, self.rows)


def check_recipe(name: str, overrides: list[str]) -> CheckedRecipe:
    """Compose the recipe and look at all that it needs; `refusals` of the result say what is missing.

    Raises:
        BadInput: the settings themselves are impossible.
    """
    # What makes the recipe itself impossible ends the check.
    config = compose_recipe(name, overrides)
    settings = check_settings(name, config)
    check_nodes(config, settings)
    check_batches(config)
    check_frequencies(config)
    check_precision(config)
    if settings:
        check_reward_workers(settings, config)
    # What is not there yet is a line, and the next is looked at.
    findings = [
        ok(
            "recipe",
            f"{name} of {config.rewriter.tenant.tenant_id} on {config.recipe.machine.device}, {_devices(config)}",
        )
    ]
    rows, finished, facts = 0, False, None
    record: dict[str, Any] = {}
    output = Path(config.trainer.default_local_dir)
    with bad_input_as("start", findings):
        check_model(config)
        findings.append(ok("start", str(config.model.path)))
    with bad_input_as("model", findings):
        facts = facts_of(str(config.model.path), str(config.recipe.pretrained))
        check_frozen_layers(config, facts)
    with bad_input_as("data", findings):
        rows = check_data(config)
        findings.append(ok("data", f"{rows} training rows, {steps_per_epoch(config, rows)} steps an epoch"))
    with bad_input_as("output", findings):
        check_disk(config)
        findings.append(ok("output", str(output)))
        if rows:
            record = run_record(f"{config.rewriter.tenant.tenant_id}_{name}", config)
            finished = check_output(output, record)
    if finished:
        return CheckedRecipe(config, rows, record, finished, [*findings, ok("state", "this very run is finished")])
    with bad_input_as("logger", findings):
        check_loggers(config)
    cards, seen = machine_findings(name, overrides, config, facts, settings)
    findings += seen + sampling_findings(config)
    if rows:
        train = Path(config.data.train_files)
        prompts = read_prompts(train, "prompt" if settings else config.data.messages_key, str(config.model.path))
        findings += data_findings(config, prompts, settings)
    if settings and settings.task == "medical":
        findings += teacher_findings(settings, samples_of(train) if rows else [])
    elif settings:
        findings.append(lexicon_finding(settings))
        with bad_input_as("judge", findings):
            findings.append(ok("judge", judge_line(settings)))
        if rows:
            findings += retrieval_findings(settings, config, output)
            findings += service_findings(config, settings, facts, samples_of(train), prompts, rows, cards, findings)
        else:
            findings.append(warning("services", "not asked: the questions would come from the training data"))
    return CheckedRecipe(config, rows, record, finished, findings)


def retrieval_findings(settings: RewriterSettings, config: DictConfig, output: Path) -> list[Finding]:
    """Ask the retrieval service what a rollout will ask, and say which reranker judges."""
    findings: list[Finding] = []
    with bad_input_as("retrieval", findings):
        hits, reranker, unsearched = check_rag(settings, config, output)
        findings.append(ok("retrieval", f"{settings.tenant.rag.url}: {hits} hits for the first query"))
        if unsearched:
            why = f"the service does not search with {', '.join(unsearched)} lines: they find nothing and are recorded "
            why += "as unsearched; start it with a dense channel (rag.serve --retriever hashing, or a model)"
            findings.append(warning("expansions", why))
        if reranker:
            findings.append(reranker_finding(reranker))
    return findings


def reranker_finding(reranker: str) -> Finding:
    """Say which reranker judges hits of unknown relevance, for the whole run."""
    if has_hash(reranker):
        return ok("reranker", f"{reranker} judges where no passage is known; pinned for the run")
    return warning("reranker", f"{reranker} judges where no passage is known: its id has no hash of its weights")


def check_data(config: DictConfig) -> int:
    """Rows of the training file.

    Raises:
        BadInput: a data file is missing or empty, or its rows belong to another tenant.
    """
    tenant = config.rewriter.tenant.tenant_id
    rows = {}
    for key in ("train_files", "val_files"):
        path = Path(config.data[key])
        if not path.is_file():
            raise BadInput(f"no file {path} (data.{key}); prepare it with python -m data_prep.{_builder(config)}")
        try:
            rows[key] = pq.ParquetFile(path).metadata.num_rows
        except pa.ArrowException as error:
            raise BadInput(f"{path} (data.{key}) is no parquet file: {str(error).splitlines()[0][:80]}") from None
        if rows[key] == 0:
            raise BadInput(f"{path} (data.{key}) holds no row")
        if config.recipe.trainer == "rl":
            found = first_sample(path).metadata.tenant_id
            if found != tenant:
                raise BadInput(f"{path} (data.{key}) belongs to tenant {found!r}, the recipe to {tenant!r}")
    train = rows["train_files"]
    if train < config.data.train_batch_size:
        raise BadInput(
            f"a step of {config.data.train_batch_size} rows (data.train_batch_size) exceeds the {train} training rows"
        )
    return train


def steps_per_epoch(config: DictConfig, rows: int) -> int:
    """Steps of one pass over the training file: every device takes as many rows, what is left over is dropped."""
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes if config.recipe.trainer == "sft" else 1
    return (rows // devices) // (config.data.train_batch_size // devices)


def check_loggers(config: DictConfig) -> None:
    """Raises BadInput when wandb is asked for and nothing says how to log in: it would fail after the long start-up."""
    known = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_MODE")) or (Path.home() / ".netrc").is_file()
    if "wandb" in config.trainer.logger and not known:
        raise BadInput("wandb needs WANDB_API_KEY (or WANDB_MODE=offline, or trainer.logger=[console])")


def check_model(config: DictConfig) -> None:
    """Raises BadInput when the weights to start from are a local path that does not exist."""
    path = str(config.model.path)
    if looks_local(path) and not (Path(path) / "config.json").is_file():
        raise BadInput(
            f"no model in {path} (config.json is missing): train or merge it first, or name it in recipe.start_from"
        )


def check_disk(config: DictConfig) -> None:
    """Raises BadInput when the output folder cannot be written or its disk is nearly full."""
    output = Path(config.trainer.default_local_dir)
    there = nearest_folder(output)
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise BadInput(f"cannot write in {there} (recipe.output_dir={output})")
    free = shutil.disk_usage(there).free / 2**30
    if free < FREE_DISK_GB:
        raise BadInput(f"{free:.1f} GB free on the disk of {output} (recipe.output_dir), {FREE_DISK_GB} GB needed")


def lexicon_finding(settings: RewriterSettings) -> Finding:
    """Say what the gates know of the tenant's own words; warn where they know none."""
    tenant = settings.tenant
    counts = f"{len(tenant.protected_groups)} protected groups, {len(tenant.products)} products"
    if tenant.protected_groups:
        return ok("lexicon", counts)
    why = "rewriter.tenant.protected_groups is empty, no gate sees 孕妇 or 退款 dropped or invented"
    return warning("lexicon", f"{counts}: {why}")


def judge_line(settings: RewriterSettings) -> str:
    """Who judges, at what price and within which budget.

    Raises:
        BadInput: the variable that should hold the judge's API key is not set, or the canary file is not there.
    """
    judge, ledger = settings.judge, settings.ledger
    if judge is None:
        return "none: the retrieval term carries the whole weight (judge=gpt5, deepseek_v3 or self_hosted)"
    if judge.api_key_env and not os.environ.get(judge.api_key_env):
        raise BadInput(f"rewriter.judge: environment variable {judge.api_key_env} is not set")
    if settings.canary is not None and not settings.canary.file.is_file():
        raise BadInput(f"rewriter.canary.file: no file {settings.canary.file}")
    limits = [
        f"{value:g} {unit} a {period}"
        for period, budget in (("run", ledger.run), ("day", ledger.day))
        for unit, value in budget.model_dump(exclude_none=True).items()
    ]
    return f"{judge.model} {judge.mode} at {judge.base_url}; budget {', '.join(limits) or 'unlimited'}"


def _builder(config: DictConfig) -> str:
    """Name the command that prepares the data of a recipe."""
    medical = OmegaConf.select(config, "rewriter.task") == "medical"
    return "build_medical" if medical else f"build_{config.recipe.trainer}"


def _devices(config: DictConfig) -> str:
    nodes, devices = config.trainer.nnodes, config.trainer.n_gpus_per_node
    return f"{nodes} nodes x {devices} device(s)" if nodes > 1 else f"{devices} device(s)"


def parse_arguments(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> tuple[argparse.Namespace, str, list[str]]:
    """All options, the recipe's name and its overrides; exits with 2 when no recipe is named."""
    parser.add_argument("words", nargs="*", metavar="RECIPE [OVERRIDE ...]", help="e.g. ppo tenant=fivedoctors")
    parser.add_argument("--config-name", metavar="RECIPE", help="the recipe, in Hydra's manner")
    args = parser.parse_intermixed_args(argv)
    words = ([args.config_name] if args.config_name else []) + args.words
    if not words:
        parser.error("which recipe? e.g. ppo tenant=fivedoctors")
    return args, words[0], words[1:]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m recipes.preflight", description=__doc__)
    parser.add_argument("--show", action="store_true", help="print the whole composed recipe as YAML")
    args, name, overrides = parse_arguments(parser, argv)
    try:
        if args.show:
            config = compose_recipe(name, overrides)
            check_settings(name, config)
            print(recipe_yaml(config), end="")
        else:
            checked = check_recipe(name, overrides)
            print(table(checked.findings, coloured=sys.stdout.isatty()))
            if checked.refusals:
                return 2
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
