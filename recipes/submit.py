"""Runs one recipe on a Ray cluster that exists: submits it as a job, shows its log, ends with its exit code.

    python -m recipes.submit --address http://HEAD:8265 grpo tenant=fivedoctors machine=gpu8x2 model=qwen3_32b

The sources go along as the job's working directory. Data, model and output are not copied: their paths must mean the
same place on every node, a shared file system; relative ones are taken from this folder. Of the environment only named
variables go along: those that hold the recipe's keys, those of W&B and of the hub, and `--env NAME`.

Exit codes: those of `recipes.launch`, which the job runs; 2 where it cannot be submitted. Ctrl-C lets the job run on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipes.checks.settings import check_settings, looks_local
from recipes.compose import compose_recipe
from recipes.preflight import parse_arguments
from reward.records.files import BadInput

ROOT = Path(__file__).resolve().parents[1]
# What a run needs of this repository, and no data that somebody put beside it.
SOURCES = {
    "recipes": ("*.py", "*.yaml"), "reward": ("*.py", "*.txt"), "export": ("*.py",), "verl_cpu": ("*.py",),
    "guard": ("*.py",), "plain_text": ("*.py",), "requirements": ("*.lock",),
}  # fmt: skip
# Paths of a recipe; of the models' only those that are no names of the hub.
PATHS = ("recipe.data_dir", "recipe.output_dir", "rewriter.ledger.path", "rewriter.canary.file")
MODELS = ("recipe.pretrained", "recipe.start_from")
KEYS = ("rewriter.judge.api_key_env", "rewriter.tenant.rag.api_key_env", "rewriter.tenant.baseline.api_key_env")
ALWAYS = (
    "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY", "HF_TOKEN", "HF_ENDPOINT", "HF_HOME",
    "HF_HUB_OFFLINE", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME",
)  # fmt: skip
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
INTERRUPTED = 130
POLL_SECONDS = 1.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", default=os.environ.get("RAY_API_SERVER_ADDRESS"), help="http://HEAD:8265")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="a variable that goes along, too")
    args, name, overrides = parse_arguments(parser, argv)
    try:
        if not args.address:
            raise BadInput("which cluster? --address http://HEAD:8265 (or RAY_API_SERVER_ADDRESS)")
        config = compose_recipe(name, overrides)
        check_settings(name, config)
        command = job_command(name, overrides, config)
        return run_job(args.address, command, job_variables(config, args.env, os.environ))
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def job_command(name: str, overrides: Sequence[str], config: DictConfig) -> list[str]:
    """Return the command that the job runs: the same recipe, its paths absolute."""
    absolute = []
    for key in (*PATHS, *MODELS):
        value = OmegaConf.select(config, key)
        if value is None or (key in MODELS and not looks_local(str(value))):
            continue
        absolute.append(f"{key}={quoted(str(Path(value).absolute()))}")
    return ["python", "-m", "recipes.launch", name, *overrides, *absolute]


def quoted(text: str) -> str:
    """Quote a value as Hydra's overrides need it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def job_variables(config: DictConfig, more: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that go along: those of the recipe's keys and the usual ones that are set, and `more`.

    Raises:
        BadInput: one of `more` is not set here.
    """
    for name in more:
        if name not in environment:
            raise BadInput(f"--env {name}: this variable is not set")
    keys = [name for key in KEYS if (name := OmegaConf.select(config, key))]
    proxies = PROXIES if OmegaConf.select(config, "rewriter.judge.proxy_from_env") else ()
    # The machine profile's own variables are set by the launcher; Ray takes none twice.
    own = set(config.recipe.machine.env)
    return {
        name: environment[name]
        for name in dict.fromkeys([*keys, *ALWAYS, *proxies, *more])
        if name in environment and name not in own
    }


def run_job(address: str, command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Submit the command to the cluster and follow it to its end.

    Returns:
        The command's exit code; 1 where Ray lost it, 130 after Ctrl-C.

    Raises:
        BadInput: the cluster cannot be reached or refuses the job.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        with TemporaryDirectory() as folder:
            copy_sources(Path(folder))
            runtime = {"working_dir": folder, "env_vars": dict(variables)}
            job = client.submit_job(entrypoint=shlex.join(command), runtime_env=runtime)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BadInput(f"{address}: {_first_line(error)}") from None
    names = ", ".join(variables) or "none"
    print(f"job {job} on {address}; variables that went along: {names}", file=sys.stderr)
    try:
        asyncio.run(_show_log(client, job))
        return _exit_code(client, job)
    except KeyboardInterrupt:
        print(f"the job goes on; to end it: ray job stop --address {address} {job}", file=sys.stderr)
        return INTERRUPTED


def copy_sources(target: Path) -> None:
    """Copy what a run needs of this repository."""
    for folder, patterns in SOURCES.items():
        for pattern in patterns:
            for path in (ROOT / folder).rglob(pattern):
                copy = target / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


async def _show_log(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def _exit_code(client: Any, job: str) -> int:
    """Wait for the job's end; the log may end a moment before."""
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(POLL_SECONDS)
    details = client.get_job_info(job)
    if status == "SUCCEEDED":
        return 0
    if details.driver_exit_code is None:
        print(f"error: job {job} {status.lower()}: {_first_line(details.message)}", file=sys.stderr)
    return details.driver_exit_code or 1


def _first_line(error: Any) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


if __name__ == "__main__":
    raise SystemExit(main())
