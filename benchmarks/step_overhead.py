"""What share of a training step do our reward adapter and sampler take, over a constant reward?

    python -m benchmarks.step_overhead [--steps 12] [--judge] [--out DIR]

Two real GRPO runs of verl on CPU with a tiny model, 128 rollouts a step: one with our reward and our sampler as the
recipe ships them (retrieval on loopback, nothing in store, no rewrite gated; with `--judge` every rewrite is judged
too), one with a constant reward and verl's own sampler. The difference of two step times on a shared machine would be
noise, so what we add is measured where it is spent, and divided by the first run's mean step:

- in the trainer, seconds in our sampler beyond verl's own `sample`, and in the health rules: the step waits for them;
- in the reward worker, CPU seconds of the whole process, less those of the other run's worker, spread over the cores:
  so much longer the step takes if all cores are busy and share evenly. It is less where these seconds pass beside an
  idle core, more where they hold up the one process that the others wait for; `overhead_cpu_in_full` counts them as if
  each delayed the step by itself, which is the most they can do.

Waiting for the services is theirs, not ours. The first and last steps (start-up, checkpoint) are left out. The last
line is JSON: `overhead` and `overhead_cpu_in_full`, shares of a step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.reward_runs.loopback_services import Services, loopback_services
from benchmarks.reward_runs.traffic import make_sample
from data_prep.build_rl import write_split
from reward.records.commands import command
from reward.records.files import BadInput
from reward.settings.recipe import load_tenant

ROOT = Path(__file__).resolve().parent.parent
PROMPTS_PER_STEP, GROUP_SIZE = 16, 8
TENANT = "fivedoctors"
WORKER_FILE, SAMPLER_FILE = "worker_cpu.jsonl", "sampler.jsonl"


@dataclass(frozen=True)
class StepCosts:
    """Mean seconds a step; see the module's text."""

    step: float
    step_with_constant_reward: float
    our_sampler: float
    reward_worker_cpu: float
    constant_reward_worker_cpu: float

    def overhead(self, cores: int) -> float:
        """Return our share of a step, the reward worker's CPU seconds spread over `cores`."""
        worker = max(0.0, self.reward_worker_cpu - self.constant_reward_worker_cpu) / cores
        return (self.our_sampler + worker) / self.step


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_overhead", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=12, help="of each run, at least 3 (default 12)")
    parser.add_argument("--judge", action="store_true", help="judge every rewrite too, on loopback")
    parser.add_argument("--out", type=Path, help="folder for data and runs, kept (default: a temporary one)")
    args = parser.parse_args(argv)
    if args.steps < 3:
        parser.error("--steps: at least 3")
    with TemporaryDirectory() as temporary:
        costs = _measure((args.out or Path(temporary)).resolve(), args.steps, args.judge)
    table = Table("a step", "seconds", title=f"{PROMPTS_PER_STEP * GROUP_SIZE} rollouts a step, {args.steps} steps")
    for name, seconds in asdict(costs).items():
        table.add_row(name.replace("_", " "), f"{seconds:.4f}")
    Console(width=120).print(table)
    shares = {"overhead": costs.overhead(psutil.cpu_count() or 1), "overhead_cpu_in_full": costs.overhead(1)}
    print(json.dumps({name: round(share, 5) for name, share in shares.items()}))
    return 0


def _measure(out: Path, steps: int, judge: bool) -> StepCosts:
    data, model = prepare(out)
    with loopback_services(seed=0, scale=1.0) as services:
        overrides = [*_overrides(services), *(_judge(services) if judge else [])]
        ours = _train(out / "ours", data, model, steps, overrides)
        constant = _train(out / "constant", data, model, steps, [*overrides, *_CONSTANT])
    return StepCosts(
        step=_mean_step(ours, steps),
        step_with_constant_reward=_mean_step(constant, steps),
        our_sampler=_mean(_sums(ours / SAMPLER_FILE, "seconds"), steps),
        reward_worker_cpu=_mean(_increases(ours / WORKER_FILE), steps),
        constant_reward_worker_cpu=_mean(_increases(constant / WORKER_FILE), steps),
    )


_CONSTANT = [
    "reward.custom_reward_function.name=constant_score",
    "trainer.v1.sampler.custom_sampler.path=null",
    "trainer.v1.sampler.custom_sampler.name=null",
]


def _overrides(services: Services) -> list[str]:
    return [
        f"rewriter.tenant.rag.url={services.rag.url}",
        "rewriter.reward.gates=[]",  # a random model's rewrites would all be gated, and cost nothing
        "reward.custom_reward_function.path=pkg://benchmarks.reward_runs.step_probes",
        "trainer.v1.sampler.custom_sampler.path=pkg://benchmarks.reward_runs.step_probes",
        "trainer.v1.sampler.custom_sampler.name=TimedReplayBuffer",
    ]


def _judge(services: Services) -> list[str]:
    return ["judge=self_hosted", f"rewriter.judge.base_url={services.judge.url}/v1"]


def prepare(out: Path) -> tuple[Path, Path]:
    """Write prompts with recorded baselines, and make a random model that can write their characters."""
    data, model = out / "data", out / "tiny"
    tenant = load_tenant(TENANT)
    samples = [make_sample(prompt, prompt) for prompt in range(16 * PROMPTS_PER_STEP)]
    write_split(data, "train", lambda: samples, tenant)
    write_split(data, "val", lambda: samples[:8], tenant)
    make = ["-m", "examples.make_tiny_model", "--tenant", TENANT, "--text", str(data / "rl_train.jsonl")]
    _run([sys.executable, *make, "--out", str(model)], out / "model.log")
    return data, model


def recipe_command(output: Path, data: Path, model: Path, steps: int, overrides: list[str]) -> list[str]:
    """Return the command that trains `model` by GRPO on a CPU and keeps its policy as it is."""
    output.mkdir(parents=True, exist_ok=True)
    return [
        "bash",
        str(ROOT / "recipes" / "run.sh"),
        "grpo",
        f"tenant={TENANT}",
        "machine=cpu",
        "model=tiny",
        f"recipe.data_dir={data}",
        f"recipe.pretrained={model}",
        f"recipe.start_from={model}",
        f"recipe.output_dir={output}",
        "recipe.machine.loggers=[console,file]",
        f"recipe.rl.prompts_per_step={PROMPTS_PER_STEP}",
        f"recipe.rl.prompts_per_update={PROMPTS_PER_STEP // 2}",
        f"recipe.rl.group_size={GROUP_SIZE}",
        "recipe.rl.micro_batch=64",
        "recipe.rl.actor_lr=1e-9",  # both runs stay with the same policy
        "trainer.test_freq=-1",
        f"trainer.total_training_steps={steps}",
        *overrides,
    ]


def _train(output: Path, data: Path, model: Path, steps: int, overrides: list[str]) -> Path:
    print(f"{output.name}: {steps} steps, log in {output}.log", file=sys.stderr)
    command = recipe_command(output, data, model, steps, overrides)
    _run(command, output.with_suffix(".log"), VERL_FILE_LOGGER_PATH=str(output / "verl.jsonl"))
    return output


def _run(command: list[str], log: Path, **environment: str) -> None:
    """Run a command; raise BadInput with the last line of its output when it fails."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("wb") as out:
        ended = subprocess.run(
            command, cwd=ROOT, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": paths, **environment}
        )
    if ended.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        raise BadInput(f"{command[0]} failed ({next(filter(None, reversed(lines)), '')}); see {log}")


def _mean_step(run: Path, steps: int) -> float:
    logged = {row["step"]: row["data"] for row in _read(run / "verl.jsonl")}
    return _mean({step: data["timing_s/step"] for step, data in logged.items() if "timing_s/step" in data}, steps)


def _mean(by_step: dict[int, float], steps: int) -> float:
    """Average over all steps but the first, which starts everything up, and the last, which saves."""
    return fmean(by_step[step] for step in range(2, steps))


def _sums(path: Path, field: str) -> dict[int, float]:
    sums: dict[int, float] = {}
    for row in _read(path):
        sums[row["step"]] = sums.get(row["step"], 0.0) + row[field]
    return sums


def _increases(path: Path) -> dict[int, float]:
    """Return how far a clock moved from the last reading of one step to the last reading of the next."""
    last = {row["step"]: row["cpu"] for row in _read(path)}
    return {step: last[step] - last[step - 1] for step in last if step - 1 in last}


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    raise SystemExit(main())
