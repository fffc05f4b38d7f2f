"""The sampler that stands between verl's rollouts and its update: drops what must not train, logs, and stops.

`trainer.v1.sampler.custom_sampler.{path: pkg://reward.verl_sampler, name: RewardReplayBuffer}`. verl itself neither
logs nor filters what a reward function returns beside its score; this is the one place where it lets us.
"""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from guard.private_files import keep_private, make_folder
from reward.engine_actor import are_alive
from reward.records.call import FailureKind
from reward.records.files import read_last_line
from reward.records.outcome import AbstainReason
from reward.records.run_files import CANARY_FILE, METRICS_FILE, STOP_FILE
from reward.rollouts.groups import AbstentionBreaker, is_outage, same_reward_share, step_metrics, trainable
from reward.rollouts.trainer_log import TrainerLog
from reward.settings.recipe import parse_settings
from reward.task import open_task


class StopReason(StrEnum):
    """Why a run stopped itself; `recipes.launch` gives each an exit code of its own."""

    SERVICES_UNAVAILABLE = "services_unavailable"
    BUDGET_SPENT = "budget_spent"
    UNHEALTHY = "unhealthy"


class RunStopped(RuntimeError):
    """The run stopped itself; the checkpoint is written and the run can be resumed."""


class RewardReplayBuffer(ReplayBuffer):
    """verl's replay buffer plus abstention, metrics and the breaker; `TrainerLog` watches what the trainer logs.

    `sampler_kwargs` (from the recipe): `poll_interval` in seconds, `group_size`, `settings` (the recipe's `rewriter`
    node) and `output_dir`, where `reward_metrics.jsonl` grows by a line a step.
    """

    def __init__(self, sampler_kwargs: Any, **kwargs: Any):
        super().__init__(sampler_kwargs=sampler_kwargs, poll_interval=sampler_kwargs.poll_interval, **kwargs)
        node: Any = OmegaConf.to_container(sampler_kwargs.settings, resolve=True)
        settings = parse_settings(node, "rewriter")
        self._task = open_task(settings)
        self._group_size = int(sampler_kwargs.group_size)
        self._output_dir = Path(sampler_kwargs.output_dir)
        self._breaker = AbstentionBreaker(settings.reward.breaker)
        # The refill callback is the trainer's own method.
        self._trainer = self.refill_fn.__self__
        self._log = TrainerLog(self._trainer, self._output_dir, settings.health, self._task)
        self._is_shared = settings.ledger.shared == "ray"
        self._ended: float | None = None

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Return a batch without abstained rollouts and half-empty groups, and the step's metrics.

        Of a validation batch only the abstained rollouts go: they leave verl's mean, and their share is logged.

        Raises:
            RunStopped: the breaker tripped, the budget is spent, a health rule says stop, or nothing is left to train.
        """
        started = time.monotonic()
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        if partition_id != "train":
            return self._scored(batch, global_steps, batch_size), metrics
        lost = self._lost(batch, global_steps, batch_size * self._group_size)

        # Which of the rollouts train.
        rollouts = _reward_fields(batch)
        abstained = [bool(rollout["abstained"]) for rollout in rollouts]
        groups = [key.split("_")[0] for key in batch.keys]
        kept = trainable(groups, abstained, self._group_size)

        # What the step logs.
        reward_metrics = {**step_metrics(rollouts, kept), **self._task.metrics(rollouts), **self._canary_metrics()}
        reward_metrics["lost"] = lost
        same = same_reward_share(groups, [rollout["score"] for rollout in rollouts], kept)
        if same is not None:
            reward_metrics["same_reward_groups"] = same
        ended = time.monotonic()
        if self._ended is not None:
            # From batch to batch: an update and a generation, whichever step they are counted to.
            reward_metrics["reward_wait_share"] = reward_metrics["reward_wait_seconds"] / (ended - self._ended)
        self._ended = ended
        self._append_metrics(global_steps, reward_metrics, ended - started)

        # Whether the run goes on.
        self._breaker.record([is_outage(rollout) for rollout in rollouts])
        if any(rollout["reason"] == AbstainReason.BUDGET for rollout in rollouts):
            self._stop(StopReason.BUDGET_SPENT, global_steps, _budget_message(rollouts))
        if self._breaker.tripped or not any(kept):
            self._stop(StopReason.SERVICES_UNAVAILABLE, global_steps, _outage_message(rollouts, self._breaker.share))
        if self._log.sick:
            self._stop(StopReason.UNHEALTHY, global_steps, "; ".join(self._log.sick))

        if not all(kept):
            batch = _without_dropped(batch, kept)
        return batch, {**metrics, **reward_metrics}

    def _scored(self, batch: KVBatchMeta, step: int, prompts: int) -> KVBatchMeta:
        """Return a validation batch without its abstained rollouts.

        Raises:
            RunStopped: the budget is spent, or none could be scored: there is nothing to validate with.
        """
        lost = self._lost(batch, step, prompts * self._trainer.config.actor_rollout_ref.rollout.val_kwargs.n)
        rollouts = _reward_fields(batch)
        abstained = [bool(rollout["abstained"]) for rollout in rollouts]
        if any(rollout["reason"] == AbstainReason.BUDGET for rollout in rollouts):
            self._stop(StopReason.BUDGET_SPENT, step, _budget_message(rollouts), finished=step)
        if all(abstained):
            self._stop(StopReason.SERVICES_UNAVAILABLE, step, _outage_message(rollouts, 1.0), finished=step)
        self._log.validated(rollouts, lost)
        return _without_dropped(batch, [not lost for lost in abstained]) if any(abstained) else batch

    def _lost(self, batch: KVBatchMeta, step: int, expected: int) -> int:
        """Return how many of the rollouts asked for the trainer has lost itself.

        Raises:
            RuntimeError: more than half, or a reward worker has died: the step is not taken, and nothing is saved.
        """
        lost = max(0, expected - len(batch.keys))
        workers = self._trainer.get_reward_handles() or []
        if 2 * lost > expected or (lost and not are_alive(workers, is_shared=self._is_shared)):
            raise RuntimeError(
                f"step {step}: {lost} of {expected} rollouts were lost because a worker has died (the log above names "
                "it); start the same command again to resume"
            )
        return lost

    def _canary_metrics(self) -> dict[str, float]:
        last = read_last_line(self._output_dir / CANARY_FILE)
        return {f"canary/{key}": float(value) for key, value in last.items() if isinstance(value, int | float)}

    def _append_metrics(self, step: int, metrics: dict[str, float], seconds: float) -> None:
        make_folder(self._output_dir)
        with open(self._output_dir / METRICS_FILE, "a", encoding="utf-8", opener=keep_private) as out:
            out.write(json.dumps({"step": step, **metrics, "rollout_seconds": round(seconds, 3)}) + "\n")

    def _stop(self, reason: StopReason, step: int, message: str, finished: int | None = None) -> None:
        """Save the weights, say why in `stopped.json`, and end the run.

        Args:
            finished: the last step whose update is in the weights; by default the one before `step`.
        """
        finished = step - 1 if finished is None else finished
        saved = self._output_dir / f"global_step_{finished}"
        if finished > 0 and not saved.exists():
            self._trainer.on_sample_end()
            self._trainer.global_steps = finished
            self._trainer._save_checkpoint()
        stop = {"reason": reason, "step": step, "message": f"step {step}: {message}"}
        (self._output_dir / STOP_FILE).write_text(json.dumps(stop, ensure_ascii=False), encoding="utf-8")
        raise RunStopped(stop["message"])


def _outage_message(rollouts: list[dict[str, Any]], share: float) -> str:
    reasons = sorted({f"{r['reason']}: {r['detail']}" for r in rollouts if r["abstained"]})
    return (
        f"{share:.0%} of the last rollouts could not be scored ({'; '.join(reasons[:2])}); "
        f"restore the service and start the same command again to resume"
    )


def _budget_message(rollouts: list[dict[str, Any]]) -> str:
    """Say which budget is spent, ours or the provider's account, and what to do about it."""
    first = next(r for r in rollouts if r["reason"] == AbstainReason.BUDGET)
    quota = first["failure"] == FailureKind.QUOTA_EXHAUSTED
    remedy = "top up the provider's account" if quota else "raise rewriter.ledger's budget"
    return f"{first['detail']}; {remedy} and start the same command again to resume"


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
