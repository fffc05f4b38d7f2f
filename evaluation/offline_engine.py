"""vLLM's offline engine for one model and a set of prompts. It stays with the process that opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward.records.files import BadInput

# GiB of RAM for the KV cache when there is no GPU: plenty for small models.
CPU_KV_CACHE_GIB = "1"


def open_engine(
    model: Path, conversations: Sequence[list[dict[str, str]]], *, max_new_tokens: int, seed: int
) -> tuple[Any, list[list[int]]]:
    """Open the engine, long enough for the longest prompt and its answer.

    Returns:
        vLLM's `LLM`; the token ids of each conversation by the tokenizer's own chat template, thinking off.

    Raises:
        BadInput: there is no chat template, the vocabularies differ, or a prompt and its answer do not fit the model's
            context.
    """
    # vLLM reads these while it is imported. The engine shares this process: it starts in 15 s instead of 40-55 s on
    # two CPU cores.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GIB)

    import torch
    from transformers import AutoConfig, AutoTokenizer
    from vllm import LLM

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template:
        raise BadInput(f"{model}: tokenizer has no chat template")
    # The recipes train with thinking off (`apply_chat_template_kwargs`); templates without that switch ignore it.
    prompts: list[list[int]] = [
        tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        for conversation in conversations
    ]
    config = AutoConfig.from_pretrained(model).get_text_config()
    if (highest := max(max(ids) for ids in prompts)) >= config.vocab_size:
        raise BadInput(f"{model}: the tokenizer gives token {highest}, the model's vocabulary is {config.vocab_size}")
    # A prompt cut to fit would lose its instruction unnoticed: refuse it.
    longest = max(len(ids) for ids in prompts)
    limit = config.max_position_embeddings
    if longest + max_new_tokens > limit:
        raise BadInput(
            f"{model}: the longest prompt ({longest} tokens) and {max_new_tokens} new tokens exceed its "
            f"context of {limit}"
        )
    gpu = torch.cuda.is_available()
    llm = LLM(
        model=str(model),
        dtype="bfloat16" if gpu else "float32",
        enforce_eager=not gpu,
        max_model_len=longest + max_new_tokens,
        seed=seed,
    )
    return llm, prompts
