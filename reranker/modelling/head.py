"""The last linear layer, and calibration written into it."""

from __future__ import annotations

from typing import Any

from reranker.modelling.calibration import Platt


def head_of(model: Any) -> tuple[str, Any]:
    """Return name and module of the layer that gives the score."""
    import torch

    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == 1
    ]
    return found[-1]


def outer_head(model: Any) -> str:
    """Return the name of the model's part that holds the head: `classifier` or `score`."""
    return head_of(model)[0].split(".")[0]


def write_calibration(cross_encoder: Any, platt: Platt) -> None:
    """Write slope and intercept into the head: every reader of the folder then gives the calibrated number.

    A head without a bias (causal models) has no place for the intercept: it becomes a module of its own, which
    sentence-transformers applies; other readers of the folder miss that constant, and keep the order.
    """
    import torch
    from sentence_transformers.base.modules import Dense

    _, head = head_of(cross_encoder.model)
    with torch.no_grad():
        head.weight.mul_(platt.slope)
        if head.bias is not None:
            head.bias.mul_(platt.slope).add_(platt.intercept)
            return
    shift = Dense(
        1, 1,
        activation_function=torch.nn.Identity(),
        init_weight=torch.ones(1, 1),
        init_bias=torch.tensor([platt.intercept], dtype=torch.float32),
        module_input_name="scores",
        module_output_name="scores",
    )  # fmt: skip
    cross_encoder.append(shift.to(cross_encoder.device))
