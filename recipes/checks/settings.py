"""What makes a recipe impossible, whatever the machine: settings of the wrong type, or that do not go together."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipes.compose import plain
from recipes.model_facts import ModelFacts
from recipes.settings import RecipeSettings
from reward.records.files import BadInput
from reward.settings.recipe import RewriterSettings, parse_settings, parse_tenant, validated

# verl composes these and never reads them (verl 0.9.1): a value there is a setting silently lost.
IGNORED_KEYS = ("custom_reward_function", "reward_model")


def check_settings(name: str, config: DictConfig) -> RewriterSettings | None:
    """The typed settings of the recipe's `rewriter` node; `None` for distillation, which has a tenant and no reward.

    Raises:
        BadInput: an unknown key, a value out of range, or a key that verl ignores silently.
    """
    for key in IGNORED_KEYS:
        node = OmegaConf.to_container(config[key]) if key in config else {}
        if _holds_value(node):
            raise BadInput(f"recipe {name}: `{key}` is ignored by verl; set `reward.{key}` instead")
    trainer = config.recipe.trainer
    recipe = plain(config.recipe)
    # What a model brings for the other trainer belongs to no recipe of this one.
    validated(RecipeSettings, {**recipe, **{other: None for other in ("rl", "sft") if other != trainer}}, "recipe")
    if trainer == "sft":
        parse_tenant(plain(config.rewriter.tenant), f"recipe {name}: rewriter.tenant")
        return None
    return parse_settings(plain(config.rewriter), f"recipe {name}: rewriter")


def check_batches(config: DictConfig) -> None:
    """Raises BadInput when a step's samples do not fit into updates and micro-batches: verl fails in mid-step."""
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    if config.recipe.trainer == "sft":
        name, micro_batch, per_device = "recipe.sft", config.recipe.sft.micro_batch, config.recipe.sft.batch / devices
        dynamic, longest = config.data.use_dynamic_bsz, config.recipe.sft.max_tokens
    else:
        rl = config.recipe.rl
        if rl.prompts_per_step % rl.prompts_per_update:
            raise BadInput(
                f"recipe.rl.prompts_per_step: {rl.prompts_per_step} is no multiple of {rl.prompts_per_update}"
            )
        if config.algorithm.adv_estimator in ("grpo", "rloo") and rl.group_size < 2:
            raise BadInput(
                f"recipe.rl.group_size: {rl.group_size}, but {config.algorithm.adv_estimator} compares siblings"
            )
        name, micro_batch, per_device = "recipe.rl", rl.micro_batch, rl.prompts_per_update * rl.group_size / devices
        dynamic, longest = config.recipe.machine.dynamic_batching, rl.max_prompt_tokens + rl.max_new_tokens
    limit = config.recipe.machine.tokens_per_gpu
    if dynamic and limit < longest:
        raise BadInput(f"recipe.machine.tokens_per_gpu: {limit} holds no sample of {longest} tokens")
    if not dynamic and per_device % micro_batch:
        raise BadInput(
            f"{name}.micro_batch: an update's {per_device:g} samples a device are no multiple of {micro_batch}"
        )


def check_frequencies(config: DictConfig) -> None:
    """Raises BadInput when an epoch is saved that is not validated: it could never be the best."""
    if config.recipe.trainer == "sft":
        return
    save, validate = config.recipe.rl.save_every_epochs, config.recipe.rl.validate_every_epochs
    if save and validate and save % validate:
        raise BadInput(f"recipe.rl.save_every_epochs: {save} is no multiple of validate_every_epochs, {validate}")


def check_precision(config: DictConfig) -> None:
    """Raises BadInput when all weights would be trained in bf16: small updates vanish in its rounding."""
    if config.recipe.trainer == "sft" and not config.model.lora_rank and config.engine.model_dtype != "fp32":
        raise BadInput("recipe.sft.weights: without LoRA (recipe.sft.lora_rank=0) it must be fp32")
    if config.recipe.trainer == "rl" and not config.recipe.rl.lora_rank and config.recipe.rl.weights != "fp32":
        raise BadInput("recipe.rl.weights: without LoRA (train=full) it must be fp32")


def check_frozen_layers(config: DictConfig, facts: ModelFacts | None) -> None:
    """Raises BadInput when no block would be left to train, or where verl cannot freeze: full training on GPUs."""
    kind = config.recipe.trainer
    frozen, rank = config.recipe[kind].frozen_layers, config.recipe[kind].lora_rank
    if facts is not None and frozen >= facts.num_hidden_layers:
        raise BadInput(f"recipe.{kind}.frozen_layers: {frozen} of {facts.num_hidden_layers} blocks leave none to train")
    if frozen and not rank and config.recipe.machine.device != "cpu":
        raise BadInput(f"recipe.{kind}.frozen_layers: on GPUs verl freezes layers with LoRA only (train=lora)")


def check_reward_workers(settings: RewriterSettings, config: DictConfig) -> None:
    """Raises BadInput when several workers would each have limits, budget and log of their own."""
    workers = config.reward.num_workers
    if workers != 1 and settings.ledger.shared == "process":
        raise BadInput(f"reward.num_workers: {workers} workers need rewriter.ledger.shared=ray")


def looks_local(model: str) -> bool:
    """Tell a folder from a name of the hub."""
    return model.startswith((".", "/", "outputs"))


def _holds_value(node: Any) -> bool:
    if isinstance(node, dict):
        return any(_holds_value(value) for value in node.values())
    return node is not None
