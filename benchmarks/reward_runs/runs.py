"""This project's engine in a process of its own, entered where verl enters it: `reward.verl_reward.compute_score`.

The event loop is uvloop's, which Ray gives its actors, verl's reward workers among them. The settings are those of the
sample tenant, as a recipe hands them over: a node of the trainer's configuration. All gates are at work, every call
goes into a fresh ledger, every rollout into a fresh log.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
import uvloop
from omegaconf import DictConfig, OmegaConf

from benchmarks.reward_runs.loopback_services import Counts, Services
from benchmarks.reward_runs.traffic import (
    GROUP_SIZE,
    JUDGE_LIMIT,
    PROMPTS,
    RAG_LIMIT,
    Arrival,
    make_rewrite,
    make_sample,
)
from reward.settings.recipe import load_tenant
from reward.verl_reward import compute_score

BATCHING_SECONDS = 0.5  # the window; the siblings' rewrites finish within about as much
_WARM_UP = 90_000  # prompts and rewrites beyond those of the traffic
_NEW, _SOAKED_PROMPTS = 0.05, 500

JudgeMode = Literal["pointwise", "batched"]
Progress = Callable[[int], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineRun:
    """One step's rollouts: seconds from the first rollout to the last reward, CPU seconds of the engine's process, and
    what the services saw of it."""

    seconds: float
    cpu_seconds: float
    judge: Counts
    rag: Counts


@dataclass(frozen=True)
class Soak:
    """Many steps' rollouts: CPU seconds of the engine's process, megabytes it grew by; both after the warm-up."""

    rollouts: int
    cpu_seconds: float
    growth_mb: float


def engine_settings(folder: Path, services: Services, mode: JudgeMode, scale: float = 1.0) -> DictConfig:
    """Return the `rewriter` node of a recipe: judge and retrieval at their true limits, the baseline's rewrite judged
    once."""
    tenant = load_tenant("fivedoctors").model_dump(mode="json")
    tenant["rag"] |= {"url": services.rag.url, "max_concurrency": RAG_LIMIT}
    judge = {
        "model": "bench",
        "base_url": f"{services.judge.url}/v1",
        "max_concurrency": JUDGE_LIMIT,
        "mode": mode,
        "baseline_votes": 1,
        "batching": {"window": (scale or 1.0) * BATCHING_SECONDS, "candidates": GROUP_SIZE},
        "price": {"currency": "CNY", "input": 4, "cached_input": 0.5, "output": 12},
    }
    ledger = {"path": str(folder / "ledger.sqlite"), "run_id": "bench"}
    return OmegaConf.create({"tenant": tenant, "reward": {"formula": "v2"}, "judge": judge, "ledger": ledger})


def run_engine(
    settings: DictConfig, folder: Path, services: Services, traffic: Sequence[Arrival], progress: Progress
) -> EngineRun:
    """Score `traffic`, each rollout as it finishes."""
    return uvloop.run(_run_engine(settings, folder, services, traffic, progress))


async def _run_engine(
    settings: DictConfig, folder: Path, services: Services, traffic: Sequence[Arrival], progress: Progress
) -> EngineRun:
    scored = 0

    async def score(arrival: Arrival, start: float) -> None:
        nonlocal scored
        await asyncio.sleep(start + arrival.seconds - time.monotonic())
        await _score(settings, folder, arrival.sample.to_extra_info(arrival.prompt), arrival.completion)
        scored += 1
        if scored % 64 == 0:
            progress(scored)

    # A training run opens its files and clients once.
    warm_up = make_sample(_WARM_UP, _WARM_UP).to_extra_info(_WARM_UP)
    await _score(settings, folder, warm_up, make_rewrite(_WARM_UP, _WARM_UP + 1))
    services.take_counts()
    start, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(score(arrival, start) for arrival in traffic))
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    progress(scored)
    return EngineRun(seconds, cpu, *services.take_counts())


def soak_engine(settings: DictConfig, folder: Path, rollouts: int, warm_up: int, progress: Progress) -> Soak:
    """Stream `rollouts` through one engine, step by step: prompts come again, and 5 % of the rewrites are new."""
    return uvloop.run(_soak_engine(settings, folder, rollouts, warm_up, progress))


async def _soak_engine(settings: DictConfig, folder: Path, rollouts: int, warm_up: int, progress: Progress) -> Soak:
    chance, process = random.Random("soak"), psutil.Process()
    infos = [make_sample(prompt, prompt).to_extra_info(prompt) for prompt in range(_SOAKED_PROMPTS)]
    known = [[make_rewrite(prompt, _SOAKED_PROMPTS + prompt)] for prompt in range(_SOAKED_PROMPTS)]
    numbers = iter(range(2 * _SOAKED_PROMPTS, 100_000))
    cpu = rss = 0.0
    done, warm = 0, False
    while done < rollouts:
        if not warm and done >= warm_up:
            warm, rss, cpu, measured_from = True, _resident(process), time.process_time(), done
        tasks = []
        for prompt in chance.choices(range(_SOAKED_PROMPTS), k=PROMPTS):
            for _ in range(GROUP_SIZE):
                if chance.random() < _NEW:
                    known[prompt].append(make_rewrite(prompt, next(numbers)))
                rewrite = chance.choice(known[prompt])
                tasks.append(_score(settings, folder, infos[prompt], rewrite, step=done // (PROMPTS * GROUP_SIZE)))
        await asyncio.gather(*tasks)
        done += len(tasks)
        progress(done)
    return Soak(done - measured_from, time.process_time() - cpu, (_resident(process) - rss) / 2**20)


async def _score(
    settings: DictConfig, folder: Path, extra_info: dict[str, Any], completion: str, step: int = 0
) -> None:
    """Score a rollout as verl does; refuse an outcome without a score, which would make a run's metrics worthless."""
    fields = await compute_score(
        data_source="bench",
        solution_str=completion,
        ground_truth="",
        extra_info={**extra_info, "min_global_steps": step},
        settings=settings,
        output_dir=str(folder),
    )
    if fields["reason"]:
        raise RuntimeError(f"a rollout was not scored: {fields['reason']} {fields['detail']}")


def _resident(process: psutil.Process) -> float:
    gc.collect()
    return process.memory_info().rss


def in_process(target: Callable[..., Result], *arguments: Any, progress: Progress) -> Result:
    """Call `target(*arguments, progress)` in a fresh process: its CPU time and memory are its own.

    Raises:
        RuntimeError: it raised (with its traceback), or the process died.
    """
    spawning = get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_call, args=(theirs, target, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        while True:
            what, value = ours.recv()
            if what == "result":
                return value
            if what == "error":
                raise RuntimeError(value)
            progress(value)
    except EOFError:
        raise RuntimeError(f"the process of {target.__name__} died") from None
    finally:
        process.join()


def _call(pipe: Connection, target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        pipe.send(("result", target(*arguments, lambda value: pipe.send(("progress", value)))))
    except Exception:  # any failure: the parent shows it
        pipe.send(("error", traceback.format_exc()))
    # As the trainer ends its reward workers: at once, clients and files open.
    os._exit(0)
