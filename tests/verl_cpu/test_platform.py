"""What the CPU platform replaces in verl must compute what verl computes."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.compose import frozen_modules
from tests.support import ROOT


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


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 16}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    )


def trained_blocks(module: torch.nn.Module) -> set[str]:
    """Backward once and return the names of the blocks, and of the embedding, that have a gradient."""
    module(input_ids=torch.tensor([[3, 4, 5]])).logits.square().mean().backward()
    names = [name for name, parameter in module.named_parameters() if parameter.grad is not None]
    return {part for name in names for part in name.split(".") if part.isdigit() or part == "embed_tokens"}


def test_full_training_leaves_the_lower_layers_as_they_are() -> None:
    import verl_cpu.engines

    assert trained_blocks(small_llama()) == {"embed_tokens", "0", "1", "2"}
    model = small_llama()
    pattern = frozen_modules(2)
    assert pattern
    verl_cpu.engines.freeze(model, pattern)
    assert trained_blocks(model) == {"2"}


def test_adapters_above_frozen_layers_end_the_backward_pass_early() -> None:
    import verl_cpu.engines

    config = SimpleNamespace(
        lora_rank=4,
        lora_alpha=8,
        target_modules="all-linear",
        target_parameters=None,
        exclude_modules=frozen_modules(2),
    )
    module = verl_cpu.engines.build_lora_module(SimpleNamespace(model_config=config), small_llama())
    adapters = {name.split("layers.")[1][0] for name, _ in module.named_parameters() if "lora_" in name}
    assert adapters == {"2"}
    below: list[bool] = []
    module.base_model.model.model.layers[1].register_forward_hook(lambda *given: below.append(given[2].requires_grad))
    assert trained_blocks(module) == {"2"} and below == [False]


def test_two_runs_on_one_machine_name_their_sockets_apart():
    script = (
        "import ray, sys\nray.init(num_cpus=0, include_dashboard=False, configure_logging=False)\n"
        "import verl_cpu.platform\nprint('id', ray.get_runtime_context().get_job_id(), flush=True)\nsys.stdin.read()\n"
    )
    environment = {**os.environ, "VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "verl_cpu.platform"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        ids = [next(line for line in run.stdout if line.startswith("id ")) for run in runs]
    finally:
        for run in runs:
            run.communicate("")
    assert ids[0] != ids[1] and all(one.startswith("id 01000000-") for one in ids)
