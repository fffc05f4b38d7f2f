"""Does the GGUF file answer as the checkpoint does? Greedy answers of both, compared token by token."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.llama_cpp.conversion import Quantisation
from reward.records.files import BadInput

# Least share of the checkpoint's greedy tokens that the file must choose too, each after the same prefix.
TOLERANCE: dict[Quantisation, float] = {"q8_0": 0.95, "q4_k_m": 0.80}
LONGEST_ANSWER = 64  # tokens; rewrites are shorter
BATCH = 16  # prompts answered at once


@dataclass(frozen=True)
class Prompt:
    """A prompt as text and in the checkpoint's tokens, with the checkpoint's greedy answer."""

    text: str
    ids: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Verification:
    """`agreement`: share of all answers' tokens that the file chooses too; `identical`: answers that it gives alike."""

    prompts: int
    tokens: int
    agreement: float
    identical: int


def answer_greedily(model: Path, texts: Sequence[str], tokenizer: Any, *, max_new_tokens: int) -> list[Prompt]:
    """Return the checkpoint's greedy answers: bfloat16 on a GPU, float32 on a CPU, as the evaluation runs it.

    Raises:
        BadInput: the weights do not load, do not fit config or vocabulary, or an answer is empty.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    gpu = torch.cuda.is_available()
    try:
        checkpoint = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if gpu else torch.float32)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{model}: does not load: {(str(error).splitlines() or ['no reason given'])[0]}") from None
    rows = checkpoint.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise BadInput(
            f"{model}: the tokenizer has {len(tokenizer)} tokens, the weights {rows}: they are of other vocabularies"
        )
    checkpoint = checkpoint.to("cuda" if gpu else "cpu").eval()
    limit = min(max_new_tokens, LONGEST_ANSWER)
    prompts: list[Prompt] = []
    for start in range(0, len(texts), BATCH):
        prompts += _answer_batch(checkpoint, tokenizer, texts[start : start + BATCH], limit)
    return prompts


def _answer_batch(checkpoint: Any, tokenizer: Any, texts: Sequence[str], limit: int) -> list[Prompt]:
    """Answer prompts of different lengths at once, padded on the left."""
    import torch

    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(one)) + one for one in ids], device=checkpoint.device)
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids], device=checkpoint.device)
    with torch.no_grad():
        output = checkpoint.generate(
            padded,
            attention_mask=mask,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=limit,
            pad_token_id=0,
        )
    end = checkpoint.generation_config.eos_token_id
    ends = set(end if isinstance(end, list) else [end])
    answers = [_until(row[longest:].tolist(), ends) for row in output]
    return [Prompt(*row) for row in zip(texts, ids, answers, strict=True)]


def _until(tokens: list[int], ends: set[int]) -> list[int]:
    """Return the answer up to its end token, that included."""
    place = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: place + 1]


def verify(weights: Path, prompts: Sequence[Prompt], quantisation: Quantisation) -> Verification:
    """Compare the GGUF file's choices with the checkpoint's answers.

    Raises:
        BadInput: llama.cpp cannot run the file, reads a prompt as other tokens, or agrees less than `TOLERANCE`.
    """
    asked, told = weights.with_suffix(".prompts"), weights.with_suffix(".choices")
    asked.write_text(json.dumps([asdict(prompt) for prompt in prompts]), encoding="utf-8")
    command = [sys.executable, "-m", "export.llama_cpp.greedy", str(weights), str(asked), str(told)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # A signal is llama.cpp's own end: it found a token or a tensor that it has no place for.
        why = "its tokenizer or weights are not what llama.cpp expects" if done.returncode < 0 else ""
        raise BadInput(f"{weights.name}: llama.cpp cannot run it: {why or (lines or ['no output'])[-1].strip()}")
    found = json.loads(told.read_text(encoding="utf-8"))
    for prompt, row in zip(prompts, found, strict=True):
        if row["ids"] != prompt.ids:
            raise BadInput(
                f"{weights.name}: llama.cpp reads the prompt {prompt.text[-60:]!r} as {len(row['ids'])} other tokens "
                f"than the checkpoint's {len(prompt.ids)}: its tokenizer is not known to llama.cpp"
            )
    pairs = [(row["choices"], prompt.answer) for prompt, row in zip(prompts, found, strict=True)]
    tokens = sum(len(answer) for _, answer in pairs)
    same = sum(a == b for choices, answer in pairs for a, b in zip(choices, answer, strict=True))
    verification = Verification(len(pairs), tokens, same / tokens, sum(a == b for a, b in pairs))
    if verification.agreement < TOLERANCE[quantisation]:
        raise BadInput(
            f"{weights.name}: agrees with the checkpoint on {verification.agreement:.1%} of {tokens} greedy tokens; at "
            f"least {TOLERANCE[quantisation]:.0%} is asked of {quantisation}. Nothing was exported"
        )
    for file in (asked, told):
        file.unlink()
    return verification
