"""Generate greedy rewrites with vLLM's offline engine, in a process of its own so that its memory is freed at the end.

    python -m evaluation.generate_rewrites --model MODEL_FOLDER --prompts prompts.jsonl --out rewrites.jsonl

`prompts.jsonl` holds {"sample_id", "messages"} a line, `rewrites.jsonl` {"sample_id", "rewrite", "cut"} in that order;
`cut` says whether the rewrite ended at the limit of new tokens.
Prompts become token ids by the tokenizer's own chat template, exactly as the trainer's rollouts do.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically

# GiB of RAM for the KV cache when there is no GPU: plenty for small models.
CPU_KV_CACHE_GIB = "1"


def generate_rewrites(
    model: Path, conversations: list[list[dict[str, str]]], *, max_new_tokens: int, seed: int
) -> list[tuple[str, bool]]:
    """Generate the model's greedy answers, special tokens removed and trimmed, one a conversation; was it cut?

    Raises:
        BadInput: a prompt and its answer do not fit the model's context.
    """
    # vLLM reads these while it is imported. The engine shares this process: it starts in 15 s instead of 40-55 s on
    # two CPU cores.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GIB)

    import torch
    from transformers import AutoConfig, AutoTokenizer
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template:
        raise BadInput(f"{model}: tokenizer has no chat template")
    # The recipes train with thinking off (`apply_chat_template_kwargs`); templates without that switch ignore it.
    prompts: list[Any] = [
        tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        for conversation in conversations
    ]
    # A prompt cut to fit would lose its instruction unnoticed: refuse it.
    longest = max(len(ids) for ids in prompts)
    limit = AutoConfig.from_pretrained(model).max_position_embeddings
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
    answers = llm.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids in prompts],
        SamplingParams(temperature=0.0, max_tokens=max_new_tokens),
        use_tqdm=False,
    )
    return [(answer.outputs[0].text.strip(), answer.outputs[0].finish_reason == "length") for answer in answers]


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Greedy rewrites of one model with vLLM's offline engine.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model folder")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL of sample_id, messages")
    parser.add_argument("--out", type=Path, required=True, help="JSONL of sample_id, rewrite, cut")
    parser.add_argument("--max-new-tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    prompts = [line for _, line in read_jsonl(args.prompts)]
    rewrites = generate_rewrites(
        args.model, [p["messages"] for p in prompts], max_new_tokens=args.max_new_tokens, seed=args.seed
    )
    write_atomically(
        args.out,
        (
            json.dumps({"sample_id": prompt["sample_id"], "rewrite": rewrite, "cut": cut}, ensure_ascii=False)
            for prompt, (rewrite, cut) in zip(prompts, rewrites, strict=True)
        ),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
