"""vLLM general plug-in: keep linear weights reloadable on CPU.

CPU vLLM replaces `layer.weight` by a packed copy after the first load, so the trainer's second weight load fails
("'Parameter' object has no attribute 'weight_loader'"). A plain linear keeps the parameter in place. Can go once
vLLM's CPU back end supports weight reloading (0.27.1 does not).
"""

from __future__ import annotations

from typing import Any

import torch


def register() -> None:
    """Register the patch: vLLM calls this entry point of group `vllm.general_plugins` in each of its processes."""
    import vllm.model_executor.layers.utils as layers

    def keep_weight(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = keep_weight
