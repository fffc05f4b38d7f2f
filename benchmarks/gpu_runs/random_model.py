"""Makes a Qwen3 of a known model's shape with random weights.

`python -m benchmarks.gpu_runs.random_model NAME TOKENIZER OUT`

TOKENIZER is a model's folder, whose tokenizer is taken. The weights are made on the GPU and written in bf16.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from recipes.model_facts import KNOWN_MODELS, ModelFacts

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def write_random_model(folder: Path, facts: ModelFacts, tokenizer: Path, device: str) -> None:
    """Write the model made on `device` ("cuda", "cpu") into `folder`, which is whole or not there."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokens = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    config = Qwen3Config(
        **asdict(facts),
        max_position_embeddings=40960,
        rope_theta=1e6,
        eos_token_id=tokens["eos_token_id"],
        pad_token_id=tokens["pad_token_id"],
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(partial)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, partial)
    partial.replace(folder)


if __name__ == "__main__":
    write_random_model(Path(sys.argv[3]), KNOWN_MODELS[sys.argv[1]], Path(sys.argv[2]), "cuda")
