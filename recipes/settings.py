"""Typed settings of a recipe's node `recipe`: what its YAML files and overrides may hold. An unknown key is an error.

The values reach verl through the references in `config/verl/*.yaml`; here they are only checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from reward.settings.data import StrictSettings

Weights = Literal["fp32", "bf16"]


class MachineSettings(StrictSettings):
    """One profile of the group `machine`; sizes in tokens, GiB or MB as their names say."""

    device: Literal["cuda", "cpu"]
    nodes: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    gpu_memory_gib: float | None = Field(None, gt=0)
    dtype: Literal["bfloat16", "float32"]
    mixed_precision: dict[str, str] | None
    attention: Literal["flash_attention_2", "sdpa", "eager"]
    remove_padding: bool
    dynamic_batching: bool
    tokens_per_gpu: int = Field(ge=1)
    gradient_checkpointing: bool
    compile: bool
    eager: bool
    sleep: bool
    tensor_parallel: int = Field(ge=1)
    gpu_memory_utilization: float = Field(gt=0, le=1)
    gpu_memory_utilization_with_critic: float = Field(gt=0, le=1)
    reference_weights: Weights
    offload_actor: bool
    offload_critic: bool
    concurrent_rollouts: int = Field(ge=1)
    batched_tokens: int = Field(ge=1)
    executor: Literal["uni"] | None
    cache_block: int | None = Field(ge=1)
    weight_bucket_mb: int = Field(ge=1)
    rollout_workers: int = Field(ge=1)
    dataloader_workers: int = Field(ge=0)
    filter_workers: int = Field(ge=1)
    storage_units: int = Field(ge=1)
    reward_engine: Literal["process", "ray"]
    poll_interval: float = Field(gt=0)
    loggers: list[str]
    ray_init: dict[str, Any]
    env: dict[str, str | int | float]

    @model_validator(mode="after")
    def _engines_share_out_the_cards(self) -> MachineSettings:
        cards = self.nodes * self.gpus_per_node
        if cards % self.tensor_parallel:
            raise ValueError(f"tensor_parallel={self.tensor_parallel} does not share out {cards} cards")
        return self


class RlSettings(StrictSettings):
    """`recipe.rl`: batch, rates, sampling and lengths of reinforcement learning; lengths in tokens."""

    prompts_per_step: int = Field(ge=1)
    prompts_per_update: int = Field(ge=1)
    group_size: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    actor_lr: float = Field(gt=0)
    critic_lr: float = Field(gt=0)
    lr_schedule: Literal["constant", "cosine"]
    min_lr_ratio: float = Field(ge=0, le=1)
    warmup_steps: int = Field(ge=0)
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    max_prompt_tokens: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    max_model_len: int = Field(ge=2)
    epochs: int = Field(ge=1)
    save_every_epochs: int | None = Field(ge=1)
    validate_every_epochs: int | None = Field(ge=1)
    lora_rank: int = Field(ge=0)
    lora_alpha: int = Field(gt=0)
    weights: Weights
    frozen_layers: int = Field(ge=0)
    adam_foreach: bool | None

    @model_validator(mode="after")
    def _engine_holds_a_rollout(self) -> RlSettings:
        longest = self.max_prompt_tokens + self.max_new_tokens
        if self.max_model_len < longest:
            raise ValueError(f"max_model_len={self.max_model_len} holds no prompt and rewrite of {longest} tokens")
        return self


class SftSettings(StrictSettings):
    """`recipe.sft`: batch, rate and lengths of distillation."""

    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    epochs: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    lora_rank: int = Field(ge=0)
    frozen_layers: int = Field(ge=0)
    weights: Weights


class RecipeSettings(StrictSettings):
    """The node of one recipe; `pretrained` and `start_from` are a folder or a name of the hub."""

    trainer: Literal["rl", "sft"]
    data_dir: Path
    output_dir: Path
    start_from: str
    pretrained: str
    machine: MachineSettings
    rl: RlSettings | None = None
    sft: SftSettings | None = None
