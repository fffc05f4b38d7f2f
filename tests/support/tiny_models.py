"""Tiny random models on disk, with a tokenizer of a text's own characters."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no"]


def save_bert(folder: Path, text: str, *, labels: int | None = None, seed: int = 0) -> Path:
    """A BERT as transformers saves it: a bare encoder, or a classifier of `labels` scores."""
    tokenizer = save_tokenizer(folder, text)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        **({} if labels is None else {"num_labels": labels}),
    )
    model = BertModel(config) if labels is None else BertForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder


def save_qwen3(folder: Path, text: str, *, generative: bool, padded: bool = True) -> Path:
    """A Qwen3 reranker: one score of a classifier, or the logits of "yes" and "no" of a language model."""
    tokenizer = save_tokenizer(folder, text)
    torch.manual_seed(0)
    padding = tokenizer.pad_token_id if padded else None
    config = qwen3_config(len(tokenizer), initializer_range=0.5, num_labels=1, pad_token_id=padding)
    model = Qwen3ForCausalLM(config) if generative else Qwen3ForSequenceClassification(config)
    model.save_pretrained(folder)
    return folder


def qwen3_config(tokens: int, **changes: Any) -> Qwen3Config:
    """A Qwen3 of two layers and a width of 32, for a vocabulary of `tokens`."""
    size = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    return Qwen3Config(vocab_size=tokens, **size, **heads, **changes)


def save_tokenizer(folder: Path, text: str) -> BertTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    characters = sorted(set(text.lower()) - set(" \n"))
    vocabulary = {token: place for place, token in enumerate(SPECIAL + characters)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=64)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_sentence_transformer(folder: Path, text: str, *, prompts: dict[str, str] | None = None, seed: int = 0) -> Path:
    from sentence_transformers import SentenceTransformer

    plain = save_bert(folder.parent / f"{folder.name}-plain", text, seed=seed)
    model = SentenceTransformer(str(plain), prompts=prompts, local_files_only=True)
    model.save(str(folder))
    return folder


def save_cross_encoder(folder: Path, text: str, *, labels: int = 1, seed: int = 0, activation=None) -> Path:
    from sentence_transformers import CrossEncoder

    plain = save_bert(folder.parent / f"{folder.name}-plain", text, labels=labels, seed=seed)
    CrossEncoder(str(plain), local_files_only=True, activation_fn=activation).save_pretrained(str(folder))
    return folder
