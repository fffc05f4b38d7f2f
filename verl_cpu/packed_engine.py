"""Makes verl's FSDP engine lay out a language model's micro-batches as `verl_cpu.packing` does.

Imported by `verl_cpu.engines`. Siblings come into the same micro-batch, results go back in the caller's order. Where a
batch is not what is expected here (a value model, distillation, several turns), verl's own way is taken. It can go once
verl shares prompts and skips the logits of prompts (0.9.1 does neither).
"""

from __future__ import annotations

from typing import Any

import torch
import verl.workers.engine.fsdp.transformer_impl as transformer_impl
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils import torch_functional as verl_F
from verl.utils.seqlen_balancing import restore_dynamic_batch

from verl_cpu.packing import Packed, pack, sibling_order

_language_model = transformer_impl.FSDPEngineWithLMHead
_prepare_inputs, _prepare_outputs = _language_model.prepare_model_inputs, _language_model.prepare_model_outputs
_prepare_micro_batches = transformer_impl.prepare_micro_batches
_postprocess = transformer_impl.postprocess_batch_func
# What asks for the logits of every token.
_WHOLE = ("use_remove_padding", "use_fused_kernels", "calculate_sum_pi_squared", "distillation_use_topk")


def prompt_lengths(batch: TensorDict) -> list[int] | None:
    """Tell how many tokens of each sequence precede its answer; None where the batch does not say it."""
    ids, prompts, mask = batch["input_ids"], batch.get("prompts", None), batch.get("loss_mask", None)
    if prompts is not None:
        return prompts.offsets().diff().tolist() if prompts.is_nested and min(prompts.offsets().diff()) > 0 else None
    if mask is None or not mask.is_nested or not torch.equal(mask.offsets(), ids.offsets()):
        return None
    firsts = [row.nonzero()[:1].flatten().tolist() for row in mask.unbind()]
    return [max(1, first[0]) if first else len(row) for first, row in zip(firsts, mask.unbind(), strict=True)]


def prepare_micro_batches(data: TensorDict, **given: Any) -> tuple[list[TensorDict], list[list[int]] | None]:
    """Bring siblings, and sequences of like length, together, then split as verl does; say what came where."""
    lengths = None if tu.get_non_tensor_data(data, key="use_dynamic_bsz", default=True) else prompt_lengths(data)
    if lengths is None:
        return _prepare_micro_batches(data=data, **given)
    ids = data["input_ids"]
    order = sibling_order(ids.values(), ids.offsets().tolist(), lengths)
    batches, _ = _prepare_micro_batches(data=tu.index_select_tensor_dict(data, order), **given)
    return batches, [order]


def postprocess_batch_func(output_lst: list[Any], indices: list[list[int]] | None, data: TensorDict) -> dict[str, Any]:
    """Join the micro-batches' results as verl does, in the order that the data had."""
    output: dict[str, Any] = _postprocess(output_lst=output_lst, indices=indices, data=data)
    if indices is not None and not tu.get_non_tensor_data(data, key="use_dynamic_bsz", default=True):
        results = output["model_output"]
        output["model_output"] = {key: restore_dynamic_batch(result, indices) for key, result in results.items()}
    return output


def prepare_model_inputs(engine: Any, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make the model's arguments from a micro-batch, and what `prepare_model_outputs` needs beside its answer."""
    whole = any(tu.get_non_tensor_data(micro_batch, key=key, default=False) for key in _WHOLE)
    lengths = None if whole or micro_batch["position_ids"].dim() == 3 else prompt_lengths(micro_batch)
    if isinstance(engine, transformer_impl.FSDPEngineWithValueHead) or lengths is None:
        return _prepare_inputs(engine, micro_batch=micro_batch)
    ids = micro_batch["input_ids"]
    packed = pack(ids.values(), ids.offsets().tolist(), lengths)
    temperature = torch.as_tensor(micro_batch["temperature"], dtype=torch.float32)
    inputs = {
        "input_ids": packed.input_ids,
        "position_ids": packed.position_ids,
        "attention_mask": packed.attention_mask,
        "logits_to_keep": packed.logits,
    }
    return inputs, {"packed": packed, "temperature": temperature.expand(len(lengths))}


def prepare_model_outputs(
    engine: Any, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
) -> dict[str, torch.Tensor]:
    """Make log-probabilities and, where asked for, entropies: nested as the input, 0 where they do not count."""
    packed: Packed | None = output_args.get("packed")
    if packed is None:
        own: dict[str, torch.Tensor] = _prepare_outputs(
            engine, output, output_args, micro_batch, logits_processor_func=logits_processor_func
        )
        return own
    ids = micro_batch["input_ids"]
    values, offsets = ids.values(), ids.offsets()
    logits = output.logits.flatten(0, 1)[packed.found]
    # Each sequence has a temperature of its own.
    temperature = output_args["temperature"].repeat_interleave(offsets.diff())[packed.kept]
    if bool((temperature != 1).any()):
        logits = logits / temperature.clamp(min=1e-8).unsqueeze(-1).to(logits.dtype)
    results = {"log_probs": verl_F.logprobs_from_logits(logits=logits, labels=values[packed.kept + 1])}
    if tu.get_non_tensor_data(micro_batch, key="calculate_entropy", default=False):
        results["entropy"] = verl_F.entropy_from_logits(logits)
    return {name: _nested(result, packed.kept, offsets) for name, result in results.items()}


def _nested(result: torch.Tensor, kept: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    flat = torch.zeros(int(offsets[-1]), dtype=result.dtype).index_put((kept,), result)
    return torch.nested.nested_tensor_from_jagged(flat, offsets)


# setattr: what is replaced is a method or a function of verl, and no type checker accepts another in its place.
setattr(transformer_impl, "prepare_micro_batches", prepare_micro_batches)  # noqa: B010
setattr(transformer_impl, "postprocess_batch_func", postprocess_batch_func)  # noqa: B010
setattr(_language_model, "prepare_model_inputs", prepare_model_inputs)  # noqa: B010
setattr(_language_model, "prepare_model_outputs", prepare_model_outputs)  # noqa: B010
