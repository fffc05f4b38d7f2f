"""Make a tiny random Qwen3 and its tokenizer, for machines that can neither download nor run an 8B model.

`python -m examples.make_tiny_model --tenant fivedoctors --text FILE [FILE ...] --out DIR [--hidden 128 --layers 3]`

The tokenizer has one token a character of the given texts (with `--words N` also one for each of their N most frequent
words, which halves the length of open-domain text), bytes for all others (so every text round-trips), and one token for
each fixed piece of the prompt template: a prompt costs little more than the words the customer typed. The weights are
random: everything such a model can do, it has learnt from your data; but for copying, with `--induction-heads`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log
from pathlib import Path

import jieba
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from data_prep.prompt import TEMPLATES
from examples.induction_heads import lay_induction_heads
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl
from reward.settings.recipe import load_tenant

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Qwen3's template without its thinking block, which a rewriter switches off anyway.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def frequent_words(texts: Iterable[str], number: int) -> list[tuple[str, int]]:
    """Return the `number` most frequent words of two or more characters, by jieba, each with its count (at least 2)."""
    jieba.setLogLevel(logging.WARNING)
    counts = Counter(word for text in texts for word in jieba.cut(text) if len(word) > 1 and not word.isspace())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(word, count) for word, count in ranked[:number] if count > 1]


def make_tokenizer(
    texts: Sequence[str], fixed_pieces: Iterable[str], words: Sequence[tuple[str, int]] = ()
) -> PreTrainedTokenizerFast:
    """Make a tokenizer of characters and words with byte fallback.

    Args:
        texts: every character that occurs in them becomes a token.
        fixed_pieces: strings that become one token each.
        words: further tokens, each with its count in the texts: a text is cut into its likeliest tokens.
    """
    counts = Counter(character for text in texts for character in text)
    total = sum(counts.values())
    vocabulary = [(token, 0.0) for token in (*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)))]
    vocabulary += [(token, log(count / total)) for token, count in (*sorted(counts.items()), *sorted(words))]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    # In an order of their own, so that equal texts give equal token ids in every process.
    pieces = sorted({piece for piece in fixed_pieces if piece.strip()}, key=lambda piece: (-len(piece), piece))
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(
    tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int, seed: int, *, copies: bool = False
) -> Qwen3ForCausalLM:
    """Make a random Qwen3 with tied embeddings and heads of 32 dimensions; of 64 with induction heads (`copies`).

    Raises:
        BadInput: the width or depth has no room for induction heads.
    """
    torch.manual_seed(seed)
    head = 64 if copies else 32
    config = Qwen3Config(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head,
        num_key_value_heads=hidden // head,
        head_dim=head,
        # Qwen's own 0.02 is made for widths of thousands: with it a narrow model takes minutes to learn to copy a word.
        initializer_range=hidden**-0.5,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_theta=10000.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    if copies:
        try:
            lay_induction_heads(model)
        except ValueError as error:
            raise BadInput(f"--induction-heads: {error}") from None
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def strings(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.make_tiny_model", description=__doc__)
    parser.add_argument("--tenant", required=True, help="whose prompt template gets tokens of its own")
    parser.add_argument(
        "--text", required=True, nargs="+", type=Path, help="JSONL files: their strings are the alphabet"
    )
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--words", type=int, default=0, help="words that become tokens (default 0: characters only)")
    parser.add_argument("--hidden", type=int, default=128, help="width, a multiple of 32 (default 128)")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument(
        "--induction-heads",
        action="store_true",
        help="let it copy from its prompt before any training; --hidden is then a multiple of 64",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    # The alphabet is that of the texts; with the settings it decides whether a model of an earlier run still fits.
    tenant = load_tenant(args.tenant)
    texts = [text for path in args.text for _, row in read_jsonl(path) for text in strings(row)]
    # The template spells the roles out: with tokens of their own a prompt is a third shorter.
    fixed = ["system\n", "user\n", "assistant\n", tenant.system_prompt, *TEMPLATES[tenant.language].fixed_strings]
    words = frequent_words(texts, args.words) if args.words else []
    alphabet = hashlib.sha256(repr((sorted({*"".join(texts)}), words)).encode()).hexdigest()
    made_from = {
        "hidden": args.hidden,
        "layers": args.layers,
        "seed": args.seed,
        "induction_heads": args.induction_heads,
        "fixed": fixed,
        "sha256": alphabet,
    }
    provenance = args.out / "provenance.json"
    if provenance.is_file():
        if json.loads(provenance.read_text(encoding="utf-8")) != made_from:
            raise BadInput(f"--out: {args.out} holds a model made from other settings or texts; choose another folder")
        print(f"model: {args.out} is up to date")
        return 0
    # Written beside its place first: a model folder is whole or not there.
    tokenizer = make_tokenizer([*texts, *fixed], fixed, words)
    model = make_model(tokenizer, args.hidden, args.layers, args.seed, copies=args.induction_heads)
    partial = args.out.with_name(args.out.name + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "provenance.json").write_text(json.dumps(made_from, ensure_ascii=False), encoding="utf-8")
    partial.replace(args.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"model: {parameters / 1e6:.2f} M parameters, {len(tokenizer)} tokens -> {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
