"""Draw several rewrites a prompt with vLLM's offline engine, in a process of its own so that its memory is freed.

    python -m evaluation.draw_rewrites --model MODEL_FOLDER --prompts prompts.jsonl --out draws.jsonl --draws 16 \\
        --temperature 1 --max-new-tokens 64

`prompts.jsonl` holds {"sample_id", "messages"} a line, `draws.jsonl` {"sample_id", "rewrites"} in that order. What is
done is kept in `draws.jsonl.part`, chunk by chunk: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.generate_rewrites import CPU_KV_CACHE_GIB
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically

CHUNK = 64  # prompts between two writes


class Drawer:
    """A model in vLLM's engine, for prompts of at most `longest` tokens.

    Raises:
        BadInput: the tokenizer has no chat template, or prompt and answer exceed the model's context.
    """

    def __init__(self, model: Path, conversations: Sequence[list[dict[str, str]]], max_new_tokens: int, seed: int):
        # vLLM reads these while it is imported; the engine shares this process (`evaluation.generate_rewrites`).
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GIB)

        import torch
        from transformers import AutoConfig, AutoTokenizer
        from vllm import LLM

        self._tokenizer = AutoTokenizer.from_pretrained(model)
        if not self._tokenizer.chat_template:
            raise BadInput(f"{model}: tokenizer has no chat template")
        longest = max(len(self._ids(conversation)) for conversation in conversations)
        limit = AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings
        if longest + max_new_tokens > limit:
            raise BadInput(
                f"{model}: the longest prompt ({longest} tokens) and {max_new_tokens} new tokens exceed its "
                f"context of {limit}"
            )
        gpu = torch.cuda.is_available()
        self._max_new_tokens = max_new_tokens
        self._llm = LLM(
            model=str(model),
            dtype="bfloat16" if gpu else "float32",
            enforce_eager=not gpu,
            max_model_len=longest + max_new_tokens,
            seed=seed,
        )

    def draw(self, conversations: Sequence[list[dict[str, str]]], draws: int, temperature: float) -> list[list[str]]:
        """Return `draws` answers of each conversation, special tokens removed and trimmed."""
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        # No seed of the request: on a CPU vLLM cannot rewind a generator of its own. The engine's seed holds.
        sampling = SamplingParams(temperature=temperature, max_tokens=self._max_new_tokens, n=draws)
        prompts = [TokensPrompt(prompt_token_ids=self._ids(conversation)) for conversation in conversations]
        answers = self._llm.generate(prompts, sampling, use_tqdm=False)
        return [[output.text.strip() for output in answer.outputs] for answer in answers]

    def _ids(self, conversation: list[dict[str, str]]) -> list[int]:
        # The recipes train with thinking off; templates without that switch ignore it.
        ids: list[int] = self._tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=False, enable_thinking=False
        )
        return ids


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Several rewrites a prompt with vLLM's offline engine.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model folder")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL of sample_id, messages")
    parser.add_argument("--out", type=Path, required=True, help="JSONL of sample_id, rewrites")
    parser.add_argument("--draws", type=int, required=True)
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    prompts = [line for _, line in read_jsonl(args.prompts)]
    partial = args.out.with_name(args.out.name + ".part")
    done = _whole_lines(partial)
    rest = prompts[len(done) :]
    if rest:
        # Another seed after a kill: the draws so far must not come a second time.
        drawer = Drawer(args.model, [p["messages"] for p in prompts], args.max_new_tokens, args.seed + len(done))
        with partial.open("w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in done)
            for start in range(0, len(rest), CHUNK):
                chunk = rest[start : start + CHUNK]
                drawn = drawer.draw([p["messages"] for p in chunk], args.draws, args.temperature)
                for prompt, rewrites in zip(chunk, drawn, strict=True):
                    done.append(_line(prompt["sample_id"], rewrites))
                    out.write(f"{done[-1]}\n")
                out.flush()
    write_atomically(args.out, done)
    partial.unlink(missing_ok=True)
    return 0


def _line(sample_id: str, rewrites: Sequence[str]) -> str:
    record: dict[str, Any] = {"sample_id": sample_id, "rewrites": list(rewrites)}
    return json.dumps(record, ensure_ascii=False)


def _whole_lines(partial: Path) -> list[str]:
    """Return the lines that an earlier run finished; a torn one at the end is none."""
    if not partial.is_file():
        return []
    return partial.read_bytes().decode("utf-8", "ignore").split("\n")[:-1]


if __name__ == "__main__":
    raise SystemExit(main())
