"""How fast do the recipes train on this node's GPUs, and does the memory plan hold?

    python -m benchmarks.gpu_check [--gpus N] [--steps 4] [--only TEXT] [--out DIR] [hydra overrides]

Runs a few steps of verl's own trainer for each set-up of `benchmarks.gpu_runs.setups`: distillation, the actor of GRPO,
the critic of PPO, on random models of the real sizes and invented data. Rollouts do not run. The first step is left
out: it compiles. Prints, in medians, tokens a second and MFU, then peak memory beside the plan, and writes
`gpu_check.json`. A set-up that fails is reported and the others still run; the exit code is 1 then. One H200 needs
about 8 minutes.

MFU is of the card's dense bf16 rate: as verl counts it, and of 6 operations a weight and token (2 without a backward
pass). Both count an update with adapters as if all weights were trained. Memory is what torch allocates; the plan is
made for the largest micro-batch that occurred, and without its overhead. Models are written to `--out`, 24 GB;
TMPDIR=/dev/shm writes them to memory. With `machine=cpu model=tiny` everything runs on a CPU, and no memory is
measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_runs.setups import SETUPS, SFT_SAMPLES, TENANT, Setup, invented_samples, write_sft_data
from recipes.checks.cards import read_cards
from recipes.compose import compose_recipe, recipe_yaml
from recipes.memory_plan import plan_memory
from recipes.model_facts import KNOWN_MODELS, facts_of
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("verl", "torch", "transformers", "peft", "flash-attn", "triton")
REPORT = "gpu_check.json"


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to use (default 1)")
    parser.add_argument("--steps", type=int, default=4, help="of each set-up, at least 2 (default 4)")
    parser.add_argument("--only", default="", help="run the set-ups whose name holds this text")
    parser.add_argument("--out", type=Path, help=f"folder for models, logs and {REPORT} (default: only {REPORT}, here)")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every recipe")
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error("--steps: at least 2")
    setups = [setup for setup in SETUPS if args.only in setup.name]
    if not setups:
        parser.error(f"--only {args.only}: no such set-up (known: {'; '.join(setup.name for setup in SETUPS)})")
    cards = read_cards()
    if "machine=cpu" not in args.overrides and (isinstance(cards, str) or len(cards) < args.gpus):
        found = cards if isinstance(cards, str) else f"{len(cards)} found"
        raise BadInput(f"--gpus {args.gpus}: {found}")
    with TemporaryDirectory() as temporary:
        out = (args.out or Path(temporary)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        samples = invented_samples(SFT_SAMPLES)
        write_atomically(out / "samples.jsonl", [sample.to_json() for sample in samples])
        write_sft_data(out / "sft_train.parquet", samples)
        results = [_run(setup, out, args.gpus, args.steps, args.overrides) for setup in setups]
    versions = {name: _version(name) for name in VERSIONS}
    report = json.dumps({"gpus": args.gpus, "versions": versions, "setups": results}, indent=1)
    write_atomically((args.out or Path()) / REPORT, [report])
    print_table(results)
    return 1 if any("failed" in result for result in results) else 0


def _run(setup: Setup, out: Path, gpus: int, steps: int, overrides: list[str]) -> dict[str, Any]:
    """Run one set-up; return what was measured beside the plan, or the reason of its failure."""
    folder = out / setup.name.replace(",", "").replace(" ", "_")
    folder.mkdir(exist_ok=True)
    recipe, measured, log = folder / "recipe.yaml", folder / "measured.json", folder / "log"
    result: dict[str, Any] = {"name": setup.name, "overrides": [*setup.overrides, *overrides], "gpus": gpus}
    print(f"{setup.name}: log in {log}", file=sys.stderr, flush=True)
    measured.unlink(missing_ok=True)
    try:
        config = _recipe(setup, out, folder, gpus, steps, overrides)
        recipe.write_text(recipe_yaml(config), encoding="utf-8")
        launch = ["torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
        worker = ["-m", "benchmarks.gpu_runs.train_steps", str(recipe), setup.trained, str(steps), str(measured)]
        _call([*launch, *worker], log, config)
    except BadInput as error:
        return result | {"failed": str(error)}
    result |= json.loads(measured.read_text(encoding="utf-8"))
    facts = facts_of(str(config.recipe.start_from), config.recipe.pretrained)
    assert facts is not None  # the model was made from them
    result["model_parameters"] = facts.parameters
    if config.recipe.machine.device == "cuda":
        tokens = max(record["largest_micro_batch"] for record in result["phases"]["update"])
        held = [f"recipe.machine.tokens_per_gpu={tokens}"] + [f"recipe.sft.max_tokens={tokens}"] * (
            setup.recipe == "sft"
        )
        measured_config = _recipe(setup, out, folder, gpus, steps, [*overrides, *held])
        result["plan"] = plan_memory(measured_config, facts, result["total"]).phase(setup.phase).parts
    return result


def _recipe(setup: Setup, out: Path, folder: Path, gpus: int, steps: int, overrides: list[str]) -> DictConfig:
    """Compose the set-up's recipe for this node, its model and data in `out`; the user's overrides win."""
    taken = {override.partition("=")[0] for override in overrides}
    own = [
        f"tenant={TENANT}",
        "machine=gpu4",
        f"recipe.machine.gpus_per_node={gpus}",
        "recipe.machine.dataloader_workers=0",
        "recipe.machine.loggers=[console]",
        f"recipe.data_dir={out}",
        f"recipe.output_dir={folder}",
        *setup.overrides,
    ]
    if setup.recipe == "sft":
        own += [f"trainer.total_training_steps={steps}", "trainer.test_freq=-1", "trainer.save_freq=-1"]
        own += ["trainer.resume_mode=disable", "data.val_files=null"]
    chosen = [*(override for override in own if override.partition("=")[0] not in taken), *overrides]
    model = _model(out, compose_recipe(setup.recipe, chosen).recipe.pretrained)
    return compose_recipe(setup.recipe, [*chosen, f"recipe.start_from={model}"])


def _model(out: Path, pretrained: str) -> Path:
    """Return the folder of a random model of this size, made if it is not there yet; the tiny one for others."""
    tiny, folder = out / "tiny", out / pretrained.replace("/", "_")
    if not tiny.is_dir():
        texts = ["--text", str(out / "samples.jsonl")]
        _call(["examples.make_tiny_model", "--tenant", TENANT, *texts, "--out", str(tiny)], out / "tiny.log")
    if pretrained not in KNOWN_MODELS:
        return tiny
    if not folder.is_dir():
        # In a process of its own: this one would go on holding the card's memory.
        _call(["benchmarks.gpu_runs.random_model", pretrained, str(tiny), str(folder)], out / "model.log")
    return folder


def _call(module: list[str], log: Path, config: DictConfig | None = None) -> None:
    """Run a module; raise BadInput with the last error of its output when it fails."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    machine = {key: str(value) for key, value in config.recipe.machine.env.items()} if config else {}
    environment = {**os.environ, "PYTHONPATH": paths, **machine}
    with log.open("wb") as stream:
        command_line = [sys.executable, "-m", *module]
        ended = subprocess.run(command_line, cwd=ROOT, stdout=stream, stderr=stream, env=environment, check=False)
    if ended.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if "Error: " in line and "ChildFailedError" not in line]
        raise BadInput(f"{(errors or lines or ['no output'])[-1].strip()[-200:]} (see {log})")


def print_table(results: list[dict[str, Any]]) -> None:
    """Print one line a phase, after the first step of each."""
    table = Table("set-up", "phase", "tokens/s", "MFU, verl's", "MFU, 6 a weight", "peak GiB", "planned")
    for result in results:
        if "failed" in result:
            table.add_row(result["name"], "failed: " + result["failed"])
            continue
        for phase, records in result["phases"].items():
            table.add_row(result["name"], phase, *columns(result, phase, records[1:]))
    Console(width=130).print(table)


def columns(result: dict[str, Any], phase: str, records: list[dict[str, Any]]) -> list[str]:
    """Return what the table says of a phase: tokens a second of all GPUs, MFU by verl and by weights, memory, plan."""
    gpus, rate = result["gpus"], result.get("promised_flops", math.inf)
    speed = median(record["tokens"] / record["seconds"] for record in records) * gpus
    counted = [record["mfu"] for record in records if record["mfu"] is not None]
    operations = (6 if phase == "update" else 2) * result["model_parameters"]
    planned = ""
    if phase == "update" and "plan" in result:
        parts = result["plan"]
        planned = f"{sum(parts.values()) - parts['overhead'] - parts['other model']:.1f}"
    return [
        f"{speed:.0f}",
        f"{median(counted):.1%}" if counted else "",
        f"{operations * speed / gpus / rate:.1%}" if math.isfinite(rate) else "",
        f"{max(record['allocated'] for record in records):.1f}" if "total" in result else "",
        planned,
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    raise SystemExit(main())
