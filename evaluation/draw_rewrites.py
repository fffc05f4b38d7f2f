"""Draw several rewrites a prompt with vLLM's offline engine, in a process of its own so that its memory is freed.

    python -m evaluation.draw_rewrites --model MODEL_FOLDER --prompts prompts.jsonl --out draws.jsonl --draws 16 \\
        --temperature 1 --max-new-tokens 64

`prompts.jsonl` holds {"sample_id", "messages"} a line, `draws.jsonl` {"sample_id", "rewrites"} in that order. What is
done is kept in `draws.jsonl.part`, chunk by chunk: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.offline_engine import open_engine
from reward.records.commands import command
from reward.records.files import read_jsonl, write_atomically

CHUNK = 64  # prompts between two writes


def draw(llm: Any, prompts: Sequence[list[int]], sampling: Any) -> list[list[str]]:
    """Return the answers to each prompt's token ids, special tokens removed and trimmed."""
    from vllm.inputs import TokensPrompt

    answers = llm.generate([TokensPrompt(prompt_token_ids=ids) for ids in prompts], sampling, use_tqdm=False)
    return [[output.text.strip() for output in answer.outputs] for answer in answers]


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
        messages = [p["messages"] for p in prompts]
        llm, ids = open_engine(args.model, messages, max_new_tokens=args.max_new_tokens, seed=args.seed + len(done))
        from vllm import SamplingParams

        # No seed of the request: on a CPU vLLM cannot rewind a generator of its own. The engine's seed holds.
        sampling = SamplingParams(temperature=args.temperature, max_tokens=args.max_new_tokens, n=args.draws)
        ids = ids[len(done) :]
        with partial.open("w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in done)
            for start in range(0, len(rest), CHUNK):
                chunk = rest[start : start + CHUNK]
                drawn = draw(llm, ids[start : start + CHUNK], sampling)
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
