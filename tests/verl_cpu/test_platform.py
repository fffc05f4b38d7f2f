"""What the CPU platform replaces in verl must compute what verl computes."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("shape", [(7, 11), (2, 5, 11)])
def test_log_probabilities_and_their_gradients_are_those_of_log_softmax(shape: tuple[int, ...]) -> None:
    from verl.utils.torch_functional import logprobs_from_logits

    import verl_cpu.engines  # noqa: F401

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    logits = (torch.randn(shape, generator=generator) * 8).requires_grad_()
    expected = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    (wanted,) = torch.autograd.grad((expected * expected.detach()).sum(), logits)
    found = logprobs_from_logits(logits, labels)
    (gradient,) = torch.autograd.grad((found * found.detach()).sum(), logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)
    assert found.max() <= 0
