"""Generate greedy rewrites with vLLM's offline engine, in a process of its own so that its memory is freed at the end.

    python -m evaluation.generate_rewrites --model MODEL_FOLDER --prompts prompts.jsonl --out rewrites.jsonl

`prompts.jsonl` holds {"sample_id", "messages"} a line, `rewrites.jsonl` in that order "sample_id" and the fields of
`Timed`.
Prompts become token ids by the tokenizer's own chat template, exactly as the trainer's rollouts do.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation.offline_engine import open_engine
from reward.records.commands import command
from reward.records.files import read_jsonl, write_atomically

# So many requests are made one after another and timed, before the batch: latency as one caller sees it.
TIMED_REQUESTS = 50


@dataclass(frozen=True)
class Timed:
    """A greedy answer, special tokens removed and trimmed.

    Args:
        cut: it ended at the limit of new tokens.
        seconds: the same request took alone, None where it was not timed.
        batch_seconds: of the whole batch that it was made in.
    """

    rewrite: str
    cut: bool
    input_tokens: int
    output_tokens: int
    seconds: float | None
    batch_seconds: float


def generate_rewrites(
    model: Path,
    conversations: list[list[dict[str, str]]],
    *,
    max_new_tokens: int,
    seed: int,
    timed: int = TIMED_REQUESTS,
) -> list[Timed]:
    """Generate the model's greedy answers, one a conversation.

    Args:
        timed: so many requests are made one after another first.

    Raises:
        BadInput: as `open_engine`.
    """
    llm, prompts = open_engine(model, conversations, max_new_tokens=max_new_tokens, seed=seed)
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    sampling = SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
    requests = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
    # The first request warms the engine up. The batch comes last: what is timed must not find its own prompt cached.
    llm.generate(requests[-1:], sampling, use_tqdm=False)
    llm.reset_prefix_cache()
    seconds = []
    for request in requests[:timed]:
        started = time.perf_counter()
        llm.generate([request], sampling, use_tqdm=False)
        seconds.append(time.perf_counter() - started)
    llm.reset_prefix_cache()
    started = time.perf_counter()
    answers = llm.generate(requests, sampling, use_tqdm=False)
    batch_seconds = time.perf_counter() - started
    return [
        Timed(
            rewrite=answer.outputs[0].text.strip(),
            cut=answer.outputs[0].finish_reason == "length",
            input_tokens=len(ids),
            output_tokens=len(answer.outputs[0].token_ids),
            seconds=seconds[place] if place < len(seconds) else None,
            batch_seconds=batch_seconds,
        )
        for place, (ids, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Greedy rewrites of one model with vLLM's offline engine.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model folder")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL of sample_id, messages")
    parser.add_argument("--out", type=Path, required=True, help="JSONL of rewrites")
    parser.add_argument("--max-new-tokens", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timed", type=int, default=TIMED_REQUESTS, help="requests timed alone (default: %(default)s)")
    args = parser.parse_args(argv)
    prompts = [line for _, line in read_jsonl(args.prompts)]
    rewrites = generate_rewrites(
        args.model,
        [p["messages"] for p in prompts],
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        timed=args.timed,
    )
    write_atomically(
        args.out,
        (
            json.dumps({"sample_id": prompt["sample_id"], **asdict(rewrite)}, ensure_ascii=False)
            for prompt, rewrite in zip(prompts, rewrites, strict=True)
        ),
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
