"""verl's own reward managers, driven as verl's reward workers drive them, with the calls of `sequential_reward` for a
reward.

In verl each worker (`verl.experimental.reward_loop.RewardLoopWorker`) is a Ray actor with an event loop and one reward
manager; each finished rollout goes at once to a random worker, whose `compute_score` awaits the manager's `run_single`.
Here the workers are plain processes (`benchmarks.reward_runs.verl_worker`): the same manager classes, loaded by verl's
own `load_reward_manager` from its configuration, without what Ray's messages would cost them. The tokenizer is a
substitute that takes no time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import Any

from benchmarks.reward_runs.traffic import Arrival

_WORKER = "benchmarks.reward_runs.verl_worker"
_START_AHEAD = 0.2  # seconds for all workers to hear when to begin


def run_manager(
    manager: str,
    workers: int,
    max_concurrent: int | None,
    judge_url: str,
    rag_url: str,
    traffic: Sequence[Arrival],
    progress: Callable[[int], None],
) -> float:
    """Score the traffic with a manager of verl's; return the seconds from the first rollout to the last reward.

    Args:
        manager: its name in verl's registry, `naive` or `rate_limited`.
        max_concurrent: rollouts that a worker of the `rate_limited` manager scores at a time.

    Raises:
        RuntimeError: a worker died or could not score a rollout.
    """
    config = {
        "reward": {
            "max_concurrent": max_concurrent,
            "reward_manager": {"source": "register", "name": manager},
            "custom_reward_function": {
                "path": "pkg://benchmarks.reward_runs.sequential_reward",
                "name": "compute_score",
                "reward_kwargs": {"judge_url": judge_url, "rag_url": rag_url},
            },
        }
    }
    # A random worker for each rollout, as in verl's agent loop.
    chance = random.Random(f"{manager} {len(traffic)}")
    shares: list[list[Arrival]] = [[] for _ in range(workers)]
    for arrival in traffic:
        shares[chance.randrange(workers)].append(arrival)
    # verl is imported once, by the process that the workers are forked from.
    forking = get_context("forkserver")
    forking.set_forkserver_preload([_WORKER])
    pipes, processes = [], []
    for share in shares:
        ours, theirs = forking.Pipe()
        process = forking.Process(target=_work, args=(theirs, config, share), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            pipe.recv()
        progress(0)
        start = time.monotonic() + _START_AHEAD
        for pipe in pipes:
            pipe.send(start)
        scored, open_pipes = 0, list(pipes)
        while open_pipes:
            for ready in wait(open_pipes):
                pipe = open_pipes[open_pipes.index(ready)]  # type: ignore[arg-type]
                if pipe.recv() == "done":
                    open_pipes.remove(pipe)
                else:
                    scored += 1
                    progress(scored)
        return time.monotonic() - start
    except EOFError:
        raise RuntimeError(f"a worker of verl's {manager} manager died") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(*arguments: Any) -> None:
    import_module(_WORKER).work(*arguments)  # has been imported before the fork; the parent has no use for verl
