"""What the two training runs of `benchmarks.step_overhead` plug into verl: our reward and sampler with stopwatches, and
a constant reward with the same stopwatch. Their readings go to `<output folder>/<name>.jsonl`, a line a reading.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from benchmarks.step_overhead import SAMPLER_FILE, WORKER_FILE
from reward import verl_reward
from reward.verl_sampler import RewardReplayBuffer


async def compute_score(extra_info: dict[str, Any], output_dir: str, **arguments: Any) -> dict[str, float | str]:
    """Compute our reward."""
    fields = await verl_reward.compute_score(extra_info=extra_info, output_dir=output_dir, **arguments)
    _read_worker_clock(extra_info, output_dir)
    return fields


async def constant_score(extra_info: dict[str, Any], output_dir: str, **_: Any) -> float:
    """Return a constant: the cheapest reward there is."""
    _read_worker_clock(extra_info, output_dir)
    return 0.0


def _read_worker_clock(extra_info: dict[str, Any], output_dir: str) -> None:
    """Return the CPU seconds of the reward worker's process so far: everything it does, verl's part included."""
    reading = {"step": int(extra_info.get("min_global_steps") or 0) + 1, "cpu": time.process_time()}
    _append(Path(output_dir) / WORKER_FILE, reading)


class _VerlsShare(ReplayBuffer):
    verls_seconds = 0.0

    def sample(self, *arguments: Any, **named: Any) -> tuple[KVBatchMeta, dict]:
        started = time.perf_counter()
        result = super().sample(*arguments, **named)
        self.verls_seconds = time.perf_counter() - started
        return result


class TimedReplayBuffer(RewardReplayBuffer, _VerlsShare):
    """Our sampler, which calls verl's through `_VerlsShare`: the difference is ours."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        started = time.perf_counter()
        result = super().sample(global_steps, partition_id, batch_size)
        ours = time.perf_counter() - started - self.verls_seconds
        _append(self._output_dir / SAMPLER_FILE, {"step": global_steps, "seconds": ours})
        return result

    def _check_health(self, step: int, metrics: dict[str, Any]) -> None:
        started = time.perf_counter()
        super()._check_health(step, metrics)
        _append(self._output_dir / SAMPLER_FILE, {"step": step, "seconds": time.perf_counter() - started})


def _append(path: Path, reading: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(json.dumps(reading) + "\n")
