"""What a language model's size follows from: the fields of its `config.json`, and counts derived from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from reward.records.files import BadInput


@dataclass(frozen=True)
class ModelFacts:
    """The shape of a dense decoder with grouped-query attention (Qwen3, Qwen2, Llama), named as in `config.json`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool

    @property
    def embedding(self) -> int:
        """Weights of the input embedding, and as many of the output layer."""
        return self.vocab_size * self.hidden_size

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of every linear layer of one block: q, k, v, o, gate, up, down."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
        return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]

    @property
    def block(self) -> int:
        """Weights of one block: linear layers, two norms over the hidden size, two over a head."""
        return sum(i * o for i, o in self.linear_shapes) + 2 * self.hidden_size + 2 * self.head_dim

    @property
    def parameters(self) -> int:
        """All weights; a tied output layer counts once."""
        embeddings = self.embedding * (1 if self.tie_word_embeddings else 2)
        return embeddings + self.num_hidden_layers * self.block + self.hidden_size

    @property
    def critic_parameters(self) -> int:
        """All weights of the same model with a value head of one output in place of the output layer."""
        return self.embedding + self.num_hidden_layers * self.block + 2 * self.hidden_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token leaves in all blocks, in bf16."""
        return 2 * 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim

    def lora_parameters(self, rank: int, frozen_layers: int = 0) -> int:
        """Weights of adapters of `rank` on every linear layer of every block but the lowest `frozen_layers`."""
        return rank * (self.num_hidden_layers - frozen_layers) * sum(i + o for i, o in self.linear_shapes)


# From the `config.json` of the models' own repositories, 2026-11.
KNOWN_MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": ModelFacts(49152, 576, 1536, 30, 9, 3, 64, True),
    "Qwen/Qwen3-0.6B": ModelFacts(151936, 1024, 3072, 28, 16, 8, 128, True),
    "Qwen/Qwen3-1.7B": ModelFacts(151936, 2048, 6144, 28, 16, 8, 128, True),
    "Qwen/Qwen3-4B": ModelFacts(151936, 2560, 9728, 36, 32, 8, 128, True),
    "Qwen/Qwen3-4B-Instruct-2507": ModelFacts(151936, 2560, 9728, 36, 32, 8, 128, True),
    "Qwen/Qwen3-8B": ModelFacts(151936, 4096, 12288, 36, 32, 8, 128, False),
    "Qwen/Qwen3-32B": ModelFacts(151936, 5120, 25600, 64, 64, 8, 128, False),
}


def facts_of(path: str, pretrained: str) -> ModelFacts | None:
    """Find the facts of the model to start from.

    Args:
        path: what the recipe starts from: a folder, or a name on the hub.
        pretrained: the model that it descends from; its facts count where `path` does not exist yet.

    Returns:
        None for a hub name that is not in `KNOWN_MODELS`.

    Raises:
        BadInput: the folder's `config.json` lacks a field or is no JSON.
    """
    for name in (path, pretrained):
        config = Path(name) / "config.json"
        if config.is_file():
            return read_facts(config)
        if name in KNOWN_MODELS:
            return KNOWN_MODELS[name]
    return None


def read_facts(config: Path) -> ModelFacts:
    """Read the facts from a `config.json`; `head_dim` and key-value heads default as in transformers.

    Raises:
        BadInput: the file is no JSON object, or a field is missing or no whole number.
    """
    try:
        values: Any = json.loads(config.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{config}: no JSON ({error})") from None
    if not isinstance(values, dict):
        raise BadInput(f"{config}: no JSON object")
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    values.setdefault("num_key_value_heads", heads)
    values.setdefault("tie_word_embeddings", False)
    if isinstance(heads, int) and isinstance(hidden, int) and heads > 0 and values.get("head_dim") is None:
        values["head_dim"] = hidden // heads
    found: dict[str, Any] = {}
    for field in fields(ModelFacts):
        value = values.get(field.name)
        if not isinstance(value, int) or value < 0:
            raise BadInput(f"{config}: {field.name}: {value!r}, expected a whole number")
        found[field.name] = value
    return ModelFacts(**found)
