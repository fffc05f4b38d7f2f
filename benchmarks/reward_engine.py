"""How fast, how cheap and how lean is the reward engine, beside what else there is?

    python -m benchmarks.reward_engine [--scale 1.0] [--seed 0]

One step's rollouts, 64 prompts x 8 with a quarter of repeated rewrites, arrive as they finish; a judge of 0.8 s and a
retrieval service of 0.15 s in the mean (log-normal, seeded by text: every system waits as long for the same work) serve
64 and 10 requests at a time, on real sockets. Each system begins with nothing in store:

- this engine, entered where verl enters it, with a pointwise judge; and again with batched calls;
- a sequential loop: sample after sample, four calls each. A few samples are timed and extrapolated to all;
- verl's naive reward manager with 8 workers, and its `rate_limited` manager at the judge's true limit (its limits are
  per process, hence one worker), both with the loop's calls made asynchronously
  (`benchmarks.reward_runs.sequential_reward`);
- the floor, computed: a bound below which no system can come (`benchmarks.reward_runs.list_scheduling`).

Wall times run from the first finished rollout to the last reward. Then 100 000 rollouts are streamed through one engine
against services without latency (500 prompts that come again and again, 5 % of the rewrites new): what a rollout costs
in CPU time, and whether memory grows. CPU times are those of the engine's process as a whole.

The last line is JSON (metrics of the run; `speedup_…` are wall times of the others over this engine's).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from benchmarks.progress import progress_bar
from benchmarks.reward_runs.loopback_services import Counts, Services, loopback_services
from benchmarks.reward_runs.runs import EngineRun, JudgeMode, Soak, engine_settings, in_process, run_engine, soak_engine
from benchmarks.reward_runs.sequential_reward import run_sequential_loop
from benchmarks.reward_runs.traffic import (
    JUDGE_LIMIT,
    PROMPTS,
    RAG_LIMIT,
    Arrival,
    computed_floor,
    make_traffic,
    unique_calls,
)
from benchmarks.reward_runs.verl_managers import run_manager

NAIVE_WORKERS = 8
SEQUENTIAL_SAMPLES = 6
SOAKED, WARM_UP = 100_000, 5_000


@dataclass(frozen=True)
class Measured:
    """A system's wall time in seconds and what the two services saw of it."""

    system: str
    seconds: float
    judge: Counts
    rag: Counts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reward_engine", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor on all latencies and arrival times (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of traffic and latencies (default 0)")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"groups of 8 rollouts (default {PROMPTS})")
    parser.add_argument("--soak", type=int, default=SOAKED, help=f"rollouts of the long run (default {SOAKED})")
    args = parser.parse_args(argv)
    if args.scale <= 0:
        parser.error("--scale: must be above 0")
    if args.soak <= WARM_UP:
        parser.error(f"--soak: must be above {WARM_UP}, the warm-up")
    traffic = make_traffic(args.seed, args.scale, args.prompts)
    floor = computed_floor(traffic, args.seed, args.scale)
    # A picture a second: the processor is shared with those who are measured.
    with progress_bar(refresh_per_second=1) as progress:
        with loopback_services(args.seed, args.scale) as services:
            engine = _measure_engine("this engine", "pointwise", services, traffic, args.scale, progress)
            coalesced = _measure_engine("this engine, batched", "batched", services, traffic, args.scale, progress)
            others = _measure_others(services, traffic, progress)
        with loopback_services(args.seed, scale=0.0) as services:
            soak = _soak(services, args.soak, progress)
    # What no system can save: one call for each different text.
    unique = len(unique_calls(traffic))
    rows = [
        Measured(name, run.seconds, run.judge, run.rag)
        for name, run in (("this engine", engine), ("this engine, batched", coalesced))
    ]
    Console(width=120).print(_table([*rows, *others], unique, floor, len(traffic)))
    print(
        f"CPU {engine.cpu_seconds / len(traffic) * 1000:.2f} ms a rollout in the first row, "
        f"{soak.cpu_seconds / soak.rollouts * 1000:.2f} ms over {soak.rollouts} mostly known ones; "
        f"memory {soak.growth_mb:+.1f} MB over these"
    )
    sequential, naive, limited = others
    metrics = {
        "wall_over_floor": engine.seconds / floor,
        "paid_calls_over_unique": engine.judge.requests / unique,
        "paid_calls_over_unique_coalesced": coalesced.judge.requests / unique,
        "rag_calls_over_unique": engine.rag.requests / unique,
        "speedup_vs_draft": sequential.seconds / engine.seconds,
        "speedup_vs_naive": naive.seconds / engine.seconds,
        "speedup_vs_rate_limited": limited.seconds / engine.seconds,
        "cpu_ms_per_rollout": engine.cpu_seconds / len(traffic) * 1000,
        "cpu_ms_per_rollout_soak": soak.cpu_seconds / soak.rollouts * 1000,
        "rss_growth_mb": soak.growth_mb,
    }
    print(json.dumps({name: round(value, 4) for name, value in metrics.items()}))
    return 0


def _measure_engine(
    name: str, mode: JudgeMode, services: Services, traffic: Sequence[Arrival], scale: float, progress: Progress
) -> EngineRun:
    show = partial(_show, progress, progress.add_task(name, total=len(traffic)))
    with TemporaryDirectory() as folder:
        settings = engine_settings(Path(folder), services, mode, scale)
        return in_process(run_engine, settings, Path(folder), services, traffic, progress=show)


def _measure_others(services: Services, traffic: Sequence[Arrival], progress: Progress) -> list[Measured]:
    """Measure the sequential loop, the naive manager and the rate-limited manager, in this order."""

    urls = services.judge.url, services.rag.url
    samples = traffic[:: max(1, len(traffic) // SEQUENTIAL_SAMPLES)][:SEQUENTIAL_SAMPLES]
    task = progress.add_task("the sequential loop", total=len(samples))
    seconds = run_sequential_loop(*urls, samples, lambda done: progress.update(task, completed=done))
    name = f"the sequential loop (extrapolated from {len(samples)} rollouts)"
    services.take_counts()
    calls = Counts(requests=2 * len(traffic), offered=1)
    measured = [Measured(name, seconds / len(samples) * len(traffic), calls, calls)]
    for manager, workers, limit in (("naive", NAIVE_WORKERS, None), ("rate_limited", 1, JUDGE_LIMIT)):
        name = f"verl's {manager} manager, {workers} worker{'s' * (workers > 1)}"
        task = progress.add_task(name, total=len(traffic))
        show = partial(_show, progress, task)
        seconds = run_manager(manager, workers, limit, *urls, traffic, show)
        measured.append(Measured(name, seconds, *services.take_counts()))
    return measured


def _show(progress: Progress, task: TaskID, done: int) -> None:
    progress.update(task, completed=done)


def _soak(services: Services, rollouts: int, progress: Progress) -> Soak:
    task = progress.add_task("many steps through one engine", total=rollouts)
    with TemporaryDirectory() as folder:
        settings = engine_settings(Path(folder), services, "pointwise")
        show = partial(_show, progress, task)
        return in_process(soak_engine, settings, Path(folder), rollouts, WARM_UP, progress=show)


def _table(rows: Sequence[Measured], unique: int, floor: float, rollouts: int) -> Table:
    table = Table(title=f"{rollouts} rollouts, {unique} texts to judge and to retrieve")
    table.add_column("system")
    for title in ("seconds", "over floor", "judge calls", "at once", "RAG calls", "at once"):
        table.add_column(title, justify="right")
    for row in rows:
        counts = [str(count) for counts in (row.judge, row.rag) for count in (counts.requests, counts.offered)]
        table.add_row(row.system, f"{row.seconds:.2f}", f"{row.seconds / floor:.2f}", *counts)
    table.add_row("floor (computed)", f"{floor:.2f}", "1.00", str(unique), "", str(unique), "", style="bold")
    table.caption = f"at once: the most requests sent and unanswered; the services serve {JUDGE_LIMIT} and {RAG_LIMIT}"
    return table


if __name__ == "__main__":
    raise SystemExit(main())
