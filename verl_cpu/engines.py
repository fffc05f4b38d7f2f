"""Three patches of verl's FSDP engine, applied when a training worker opens its process group.

The first two can go once verl takes the attention implementation and memory pinning from its configuration
(0.9.1 hard-codes them), the third once its log-probabilities without flash-attention take all tokens at once.
"""

from __future__ import annotations

from typing import Any

import torch
import verl.utils.model
import verl.utils.torch_functional
import verl.workers.engine.fsdp.transformer_impl


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


# setattr: what is replaced is a class, and no type checker accepts a function in its place.
setattr(verl.utils.model, "load_valuehead_model", load_valuehead_model)  # noqa: B010
setattr(verl.workers.engine.fsdp.transformer_impl, "CPUOffloadPolicy", no_offload)  # noqa: B010
setattr(verl.utils.torch_functional, "logprobs_from_logits_v2", logprobs_from_logits)  # noqa: B010
