"""The sampler that stands between verl's rollouts and its update: drops what must not train, logs, and stops.

`trainer.v1.sampler.custom_sampler.{path: pkg://reward.verl_metrics, name: RewardReplayBuffer}`. verl itself neither
logs nor filters what a reward function returns beside its score; this is the one place where it lets us.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from reward.rollout_groups import AbstentionBreaker, step_metrics, trainable
from reward.settings import RewardSettings

STOP_FILE = "stopped.json"
METRICS_FILE = "reward_metrics.jsonl"


class ServicesUnavailable(RuntimeError):
    """Too many rollouts could not be scored; the checkpoint is written and the run can be resumed."""


class RewardReplayBuffer(ReplayBuffer):
    """verl's replay buffer plus abstention, metrics and the breaker.

    `sampler_kwargs` (from the recipe): `poll_interval` in seconds, `group_size`, `reward` (the recipe's
    `rewriter.reward` node) and `output_dir`, where `reward_metrics.jsonl` grows by a line a step.
    """

    def __init__(self, sampler_kwargs: Any, **kwargs: Any):
        super().__init__(sampler_kwargs=sampler_kwargs, poll_interval=sampler_kwargs.poll_interval, **kwargs)
        self._settings = RewardSettings.model_validate(OmegaConf.to_container(sampler_kwargs.reward, resolve=True))
        self._group_size = int(sampler_kwargs.group_size)
        self._output_dir = Path(sampler_kwargs.output_dir)
        self._breaker = AbstentionBreaker(self._settings.breaker)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """A batch without abstained rollouts and half-empty groups, and the step's metrics.

        Raises:
            ServicesUnavailable: the breaker tripped, or nothing is left to train on.
        """
        started = time.monotonic()
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id != "train":
            return batch, metrics
        rollouts = _reward_fields(batch)
        abstained = [bool(rollout["abstained"]) for rollout in rollouts]
        kept = trainable([key.split("_")[0] for key in batch.keys], abstained, self._group_size)
        figures = step_metrics(
            rollouts, kept, policy_label=self._settings.policy_label, baseline_label=self._settings.baseline_label
        )
        self._append_metrics(global_steps, figures, time.monotonic() - started)
        self._breaker.record(abstained)
        if self._breaker.tripped or not any(kept):
            self._stop(global_steps, rollouts)
        if not all(kept):
            batch = _without_dropped(batch, kept)
        return batch, {**metrics, **figures}

    def _append_metrics(self, step: int, figures: dict[str, float], seconds: float) -> None:
        self._output_dir.mkdir(parents=True, exist_ok=True)
        with (self._output_dir / METRICS_FILE).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": step, **figures, "rollout_seconds": round(seconds, 3)}) + "\n")

    def _stop(self, step: int, rollouts: list[dict[str, Any]]) -> None:
        reasons = sorted({f"{r['reason']}: {r['detail']}" for r in rollouts if r["abstained"]})
        message = (
            f"step {step}: {self._breaker.share:.0%} of the last rollouts could not be scored "
            f"({'; '.join(reasons[:2])}); restore the service and start the same command again to resume"
        )
        # The refill callback is the trainer's own method: through it the weights of the last finished step are saved.
        trainer = self.refill_fn.__self__
        finished = step - 1
        saved = self._output_dir / f"global_step_{finished}"
        if finished > 0 and not saved.exists():
            trainer.on_sample_end()
            trainer.global_steps = finished
            trainer._save_checkpoint()
        stop = {"reason": "services_unavailable", "step": step, "message": message}
        (self._output_dir / STOP_FILE).write_text(json.dumps(stop, ensure_ascii=False), encoding="utf-8")
        raise ServicesUnavailable(message)


def _reward_fields(batch: KVBatchMeta) -> list[dict[str, Any]]:
    """What `compute_score` returned for each rollout of the batch, in the batch's order."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
    return [getattr(fields, "data", fields)["reward_extra_info"] for fields in data["extra_fields"]]


def _without_dropped(batch: KVBatchMeta, kept: list[bool]) -> KVBatchMeta:
    dropped = [key for key, keep in zip(batch.keys, kept, strict=True) if not keep]
    tq.kv_clear(partition_id=batch.partition_id, keys=dropped)
    rows = [row for row, keep in enumerate(kept) if keep]
    return KVBatchMeta(
        partition_id=batch.partition_id,
        keys=[batch.keys[row] for row in rows],
        tags=[batch.tags[row] for row in rows],
    )
