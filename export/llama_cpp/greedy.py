"""Run a GGUF file over prompts and given answers: which token would llama.cpp choose at every place of each answer?

    python -m export.llama_cpp.greedy MODEL.gguf prompts.json choices.json

`prompts.json`: [{"text", "ids", "answer"}], the prompt as text and as the checkpoint's tokens, and the checkpoint's
greedy answer in tokens. `choices.json`: [{"ids", "choices"}], the prompt in llama.cpp's tokens and its greedy choice
after every prefix of the answer. All choices equal the answer exactly when greedy decoding gives that answer.
A process of its own: llama.cpp ends the process on what it cannot read.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cyllama.llama import llama_cpp


class Model(llama_cpp.LlamaModel):
    """A model that knows the size of its vocabulary: cyllama 0.2.18 asks for it to read logits, and lacks it."""

    @property
    def n_vocab(self) -> int:
        return int(self.get_vocab().n_vocab)


def main(model: str, prompts: str, out: str) -> int:
    rows = json.loads(Path(prompts).read_text(encoding="utf-8"))
    llama_cpp.disable_logging()
    parameters = llama_cpp.LlamaModelParams()
    parameters.n_gpu_layers = 0
    loaded = Model(model, parameters, False)
    vocabulary = loaded.get_vocab()
    # Ollama adds what the file asks for (a token at the beginning) and reads the template's special tokens.
    tokens = [list(vocabulary.tokenize(row["text"], True, True)) for row in rows]
    longest = max(len(row["ids"]) + len(row["answer"]) for row in rows)
    context = llama_cpp.LlamaContext(loaded, _context_parameters(longest))
    found = [{"ids": ids, "choices": _choices(context, row, longest)} for ids, row in zip(tokens, rows, strict=True)]
    Path(out).write_text(json.dumps(found), encoding="utf-8")
    return 0


def _context_parameters(longest: int) -> Any:
    parameters = llama_cpp.LlamaContextParams()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = longest
    parameters.n_threads = parameters.n_threads_batch = os.cpu_count() or 1
    return parameters


def _choices(context: Any, row: dict[str, Any], longest: int) -> list[int]:
    """Return the most likely token after the prompt and after each of the answer's tokens but the last."""
    context.kv_cache_clear()
    last = len(row["ids"]) - 1
    sequence = [*row["ids"], *row["answer"][:-1]]
    batch = llama_cpp.LlamaBatch(n_tokens=longest, embd=0, n_seq_max=1)
    for place, token in enumerate(sequence):
        batch.add(token, place, [0], place >= last)
    context.decode(batch)
    return [int(np.argmax(context.get_logits_ith(place))) for place in range(last, len(sequence))]


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
