"""Patches of verl's FSDP engine, applied when a training worker opens its process group.

The first two can go once verl takes the attention implementation and memory pinning from its configuration
(0.9.1 hard-codes them), the third once its log-probabilities without flash-attention take all tokens at once, the last
two once verl freezes modules in full training and asks for the embedding's gradient only under gradient checkpointing.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import verl.utils.model
import verl.utils.torch_functional
import verl.workers.engine.fsdp.transformer_impl

import verl_cpu.packed_engine  # noqa: F401


def load_valuehead_model(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
    """Load a critic with the attention implementation of its config; verl asks for flash_attention_2, which needs
    CUDA."""
    from transformers import AutoModelForTokenClassification

    return AutoModelForTokenClassification.from_pretrained(
        local_path,
        dtype=torch_dtype,
        config=model_config,
        attn_implementation=model_config._attn_implementation or "sdpa",
        trust_remote_code=trust_remote_code,
    )


def no_offload(pin_memory: bool = True) -> None:
    """Offload no parameters of the reference policy: verl pins them, and pinning needs an accelerator."""


def logprobs_from_logits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Compute log-probabilities (...) of labels (...) under logits (..., vocabulary), all tokens at once.

    verl goes token by token to save GPU memory; of a small model on a CPU that is a third of a training step.
    """
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
    return -loss.view_as(labels)


def freeze(module: torch.nn.Module, pattern: str) -> None:
    """Freeze the parameters whose whole name matches `pattern`."""
    for name, parameter in module.named_parameters():
        if re.fullmatch(pattern, name):
            parameter.requires_grad = False


_engine = verl.workers.engine.fsdp.transformer_impl.FSDPEngine
_build_module, _build_lora_module = _engine._build_module, _engine._build_lora_module


def build_module(engine: Any) -> torch.nn.Module:
    """Build the model as verl does; where every weight is trained, freeze what LoRA would give no adapter."""
    module: torch.nn.Module = _build_module(engine)
    config = engine.model_config
    if config.exclude_modules and not config.lora_rank:
        freeze(module, config.exclude_modules)
    return module


def build_lora_module(engine: Any, module: Any) -> Any:
    """Add the adapters as verl does, without a gradient of the embedding: the backward pass ends at the lowest one.

    verl asks for that gradient because gradient checkpointing of an older kind needs it.
    """
    module.enable_input_require_grads = lambda: None
    return _build_lora_module(engine, module)


# setattr: what is replaced is a class, and no type checker accepts a function in its place.
setattr(verl.utils.model, "load_valuehead_model", load_valuehead_model)  # noqa: B010
setattr(verl.workers.engine.fsdp.transformer_impl, "CPUOffloadPolicy", no_offload)  # noqa: B010
setattr(verl.utils.torch_functional, "logprobs_from_logits_v2", logprobs_from_logits)  # noqa: B010
setattr(_engine, "_build_module", build_module)  # noqa: B010
setattr(_engine, "_build_lora_module", build_lora_module)  # noqa: B010
