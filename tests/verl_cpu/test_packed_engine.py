"""A packed micro-batch gives the log-probabilities, entropies and gradients of verl's own padded one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
from verl.utils import tensordict_utils as tu

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "attn_implementation": "sdpa",
}


def nested(rows: list[list[int]]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def make_batch(sequences: list[tuple[list[int], list[int]]], *, answers_known: str, temperature: float) -> Any:
    """A batch as the trainers make it: RL names prompts and responses, SFT a mask."""
    ids = [prompt + answer for prompt, answer in sequences]
    tensors = {"input_ids": nested(ids), "position_ids": nested([list(range(len(row))) for row in ids])}
    if answers_known == "rl":
        tensors |= {"prompts": nested([p for p, _ in sequences]), "responses": nested([a for _, a in sequences])}
    else:
        tensors["loss_mask"] = nested([[0] * len(p) + [1] * len(a) for p, a in sequences])
    flags = {"use_remove_padding": False, "use_dynamic_bsz": False, "calculate_entropy": True}
    return tu.get_tensordict(tensors, flags | {"temperature": temperature, "pad_token_id": 0})


def sequences_of(kind: str) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(0)

    def tokens(number: int) -> list[int]:
        return [rng.randrange(1, 61) for _ in range(number)]

    prompts = [tokens(length) for length in (7, 1, 12, 7)]
    if kind == "siblings":
        made = [(prompt, tokens(rng.randint(1, 6))) for prompt in prompts for _ in range(3)]
        rng.shuffle(made)
        return made
    if kind == "strangers":
        return [(prompt, tokens(rng.randint(1, 6))) for prompt in prompts]
    if kind == "alike":  # one prompt begins another, and a sibling says the same twice
        return [(prompts[0], [5, 6]), (prompts[0][:3], [*prompts[0][3:], 5]), (prompts[0], [5, 6]), (prompts[0], [5])]
    return [(prompts[0], tokens(4))]


def results(model: Any, batch: Any, inputs: Any, outputs: Any) -> tuple[Any, list[torch.Tensor]]:
    """Log-probabilities, entropies, and the gradients of a loss on those that count."""
    engine = SimpleNamespace(pad_to_length=False, engine_config=SimpleNamespace(entropy_checkpointing=False))
    given, more = inputs(engine, micro_batch=batch)
    found = outputs(engine, model(**given, use_cache=False), more, batch, logits_processor_func=None)
    counted = counting(batch)
    # No two places weigh the same: an exchange would show.
    weights = torch.linspace(0.5, 1.5, len(counted))
    model.zero_grad()
    loss = (found["log_probs"].values() * counted * weights).sum() + (found["entropy"].values() * counted).sum()
    loss.backward()
    values = {name: found[name].values().detach()[counted.bool()] for name in ("log_probs", "entropy")}
    return values, [parameter.grad.clone() for parameter in model.parameters()]


def counting(batch: Any) -> torch.Tensor:
    """1 at each token whose successor belongs to an answer."""
    import verl_cpu.packed_engine

    counted = torch.zeros(len(batch["input_ids"].values()))
    lengths = verl_cpu.packed_engine.prompt_lengths(batch)
    assert lengths
    offsets = batch["input_ids"].offsets().tolist()
    for start, end, length in zip(offsets[:-1], offsets[1:], lengths, strict=True):
        counted[start + length - 1 : end - 1] = 1
    return counted


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("trainer", ["rl", "sft"])
@pytest.mark.parametrize("kind", ["siblings", "strangers", "alike", "one"])
@pytest.mark.parametrize(("family", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config)])
def test_a_packed_batch_computes_what_a_padded_one_does(family, config, kind, trainer, temperature) -> None:
    import verl_cpu.packed_engine as packed_engine

    torch.manual_seed(0)
    model = family(config(**SIZES, tie_word_embeddings=True)).double()
    batch = make_batch(sequences_of(kind), answers_known=trainer, temperature=temperature)
    wanted, wanted_gradients = results(model, batch, packed_engine._prepare_inputs, packed_engine._prepare_outputs)
    found, gradients = results(model, batch, packed_engine.prepare_model_inputs, packed_engine.prepare_model_outputs)
    for name, values in wanted.items():
        torch.testing.assert_close(found[name].double(), values.double(), rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_once_for_its_siblings() -> None:
    from verl_cpu.packing import pack

    sequences = [([1, 2, 3], [4]), ([1, 2, 3], [5, 6]), ([9], [7])]
    ids = [token for prompt, answer in sequences for token in prompt + answer]
    packed = pack(torch.tensor(ids), [0, 4, 9, 11], [3, 3, 1])
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 6], [0, 0, 9, 7, 0, 0]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 3, 4], [0, 0, 0, 1, 0, 0]]
    assert packed.logits == 4 and packed.kept.tolist() == [2, 6, 7, 9] and packed.found.tolist() == [0, 0, 2, 4]
    # The second answer sees the prompt and itself, and nothing of the first.
    assert packed.attention_mask[0, 0, 5].tolist() == [True, True, True, False, True, True]


def test_siblings_meet_and_results_return_in_the_order_of_the_data() -> None:
    import verl_cpu.packed_engine as packed_engine

    sequences = sequences_of("siblings")
    batch = make_batch(sequences, answers_known="rl", temperature=1.0)
    tu.assign_non_tensor(batch, micro_batch_size_per_gpu=3)
    batches, order = packed_engine.prepare_micro_batches(data=batch)
    assert len(batches) == 4
    for micro in batches:
        assert len({tuple(row.tolist()) for row in micro["prompts"].unbind()}) == 1
    outputs = [{"model_output": {"log_probs": micro["input_ids"]}, "loss": 0.0, "metrics": {}} for micro in batches]
    joined = packed_engine.postprocess_batch_func(output_lst=outputs, indices=order, data=batch)
    assert [row.tolist() for row in joined["model_output"]["log_probs"].unbind()] == [p + a for p, a in sequences]
