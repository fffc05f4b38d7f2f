"""Runs a few steps of verl's own trainer on a written recipe, and measures them; one process a GPU, under torchrun.

`torchrun --nproc_per_node=N -m benchmarks.gpu_runs.train_steps RECIPE.yaml TRAINED STEPS OUT.json`

An SFT recipe runs verl's `SFTTrainer` on its parquet. Of an RL recipe the parts that train run: verl's
`ActorRolloutRefWorker` as actor (log-probabilities, update) or its critic worker (values, update), on random tokens
of the recipe's lengths; the rollout engine does not.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict

from benchmarks.gpu_runs.probe import Probe


def main(recipe: str, trained: str, steps: int, out: str) -> None:
    from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group

    config = OmegaConf.load(recipe)
    assert isinstance(config, DictConfig)
    os.environ.update({key: str(value) for key, value in config.recipe.machine.env.items()})
    initialize_global_process_group()
    rank = torch.distributed.get_rank()
    probe = Probe()
    if config.recipe.trainer == "sft":
        run_sft(config, probe)
    elif trained == "critic":
        run_critic(config, probe, steps)
    else:
        run_actor(config, probe, steps)
    if rank == 0:
        Path(out).write_text(json.dumps(probe.result()), encoding="utf-8")
    destroy_global_process_group()


def run_sft(config: DictConfig, probe: Probe) -> None:
    """Run verl's SFT trainer; it stops after `trainer.total_training_steps`."""
    from verl.trainer.sft_trainer import SFTTrainer

    trainer = SFTTrainer(config=config)
    probe.attach(trainer.engine)
    train = trainer.training_client.train_batch
    trainer.training_client.train_batch = lambda data: probe.measure("update", partial(train, data))
    trainer.ckpt_handler.save_checkpoint = lambda step: None  # it saves after the last step
    trainer.fit()


def run_actor(config: DictConfig, probe: Probe, steps: int) -> None:
    """Run what one GPU does for the actor in a step: log-probabilities, the reference's with adapters, the update."""
    from verl.workers.engine_workers import ActorRolloutRefWorker
    from verl.workers.utils.padding import response_from_nested

    nodes = config.actor_rollout_ref
    worker = ActorRolloutRefWorker(config=nodes, role="actor")
    worker.init_model()
    probe.attach(worker.actor.engine)
    for step in range(steps):
        rollouts = random_rollouts(config, seed=step)
        mask = rollouts["response_mask"]
        forward = partial(with_meta, rollouts, compute_loss=False, temperature=nodes.rollout.temperature)
        batch = forward(calculate_entropy=True)
        old = probe.measure("log-probs", partial(worker.compute_log_prob, batch))["log_probs"]
        reference = old
        if nodes.model.lora_rank:
            batch = forward(calculate_entropy=False, no_lora_adapter=True)
            reference = probe.measure("reference", partial(worker.compute_log_prob, batch))["log_probs"]
        fields = {
            "old_log_probs": response_from_nested(old, mask),
            "ref_log_prob": response_from_nested(reference, mask),
            "advantages": like(mask, torch.randn),
        }
        batch = with_meta(
            rollouts,
            fields,
            **update_meta(config, nodes.actor),
            epochs=1,
            calculate_entropy=bool(nodes.actor.calculate_entropy or nodes.actor.entropy_coeff),
            distillation_use_topk=False,
            distillation_only=False,
        )
        probe.measure("update", partial(worker.update_actor, batch))


def run_critic(config: DictConfig, probe: Probe, steps: int) -> None:
    """Run what one GPU does for the critic in a step: values, and the update."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig
    from verl.workers.utils.losses import value_loss
    from verl.workers.utils.padding import response_from_nested

    critic = omega_conf_to_dataclass(config.critic)
    # As verl's trainer does before it starts the worker.
    critic.engine.infer_max_token_len_per_gpu = critic.ppo_infer_max_token_len_per_gpu
    critic.engine.max_token_len_per_gpu = critic.ppo_infer_max_token_len_per_gpu
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type="value_model",
            model_config=critic.model,
            engine_config=critic.engine,
            optimizer_config=critic.optim,
            checkpoint_config=critic.checkpoint,
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(value_loss, config=critic))
    probe.attach(worker.engine)
    temperature = config.actor_rollout_ref.rollout.temperature
    for step in range(steps):
        rollouts = random_rollouts(config, seed=step)
        mask = rollouts["response_mask"]
        batch = with_meta(rollouts, compute_loss=False, temperature=temperature)
        values = probe.measure("values", partial(worker.infer_batch, batch))["values"]
        fields = {"values": response_from_nested(values, mask), "returns": like(mask, torch.randn)}
        batch = with_meta(rollouts, fields, **update_meta(config, config.critic), epochs=1)
        probe.measure("update", partial(worker.train_mini_batch, batch))


def random_rollouts(config: DictConfig, seed: int) -> TensorDict:
    """Make this rank's rollouts of one update: bytes as tokens, of half to all of the limits."""
    rl, world = config.recipe.rl, torch.distributed.get_world_size()
    rng = torch.Generator().manual_seed(1000 * seed + torch.distributed.get_rank())
    number = rl.prompts_per_update * rl.group_size // world

    def texts(limit: int) -> list[torch.Tensor]:
        lengths = torch.randint(limit // 2, limit + 1, (number,), generator=rng).tolist()
        return [torch.randint(3, 259, (length,), generator=rng) for length in lengths]

    prompts, responses = texts(rl.max_prompt_tokens), texts(rl.max_new_tokens)
    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    masks = nested([torch.ones_like(response) for response in responses])
    return TensorDict(
        {
            "prompts": nested(prompts),
            "responses": nested(responses),
            "input_ids": nested(whole),
            "position_ids": nested([torch.arange(len(text)) for text in whole]),
            "response_mask": masks,
            "loss_mask": masks,
        },
        batch_size=[number],
    )


def update_meta(config: DictConfig, trained: DictConfig) -> dict[str, Any]:
    """What verl's trainer sends with an update."""
    samples = trained.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n
    return {
        "global_batch_size": samples,
        "mini_batch_size": samples,
        "seed": trained.data_loader_seed,
        "dataloader_kwargs": {"shuffle": trained.shuffle},
        "temperature": config.actor_rollout_ref.rollout.temperature,
    }


def with_meta(rollouts: TensorDict, fields: dict[str, torch.Tensor] | None = None, **meta: Any) -> TensorDict:
    """Return a batch of its own: verl's workers take keys out of what they are given."""
    from verl.utils import tensordict_utils as tu

    batch = TensorDict({**dict(rollouts.items()), **(fields or {})}, batch_size=rollouts.batch_size)
    tu.assign_non_tensor(batch, **meta)
    return batch


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def like(mask: torch.Tensor, make: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Make a nested tensor of the mask's lengths."""
    return nested([make(len(row)) for row in mask.unbind()])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
