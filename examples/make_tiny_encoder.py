"""Make a tiny BERT and its tokenizer, for a cross-encoder where no pretrained model is at hand.

`python -m examples.make_tiny_encoder --text FILE [FILE ...] --out DIR`

Frequent words have a token of their own, so that a product's name is one token in query and passage.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import log
from pathlib import Path

import torch
from tokenizers import processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from examples.make_tiny_model import SPECIAL, frequent_words, make_tokenizer, strings
from reward.records.commands import command
from reward.records.files import read_jsonl

_LONGEST = 256  # tokens
_SHARP, _WIDE = 2.0, 0.5  # of attention to equal tokens among about 80, and to all of the query
_KEPT = 0.45  # of a token's length, in the direction of the query's side, above which it counts as without equals


def rarity(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """Return each token's inverse document frequency over the texts, as a share of the largest, in [0, 1]."""
    found = torch.zeros(len(tokenizer))
    for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
        found[list(set(ids))] += 1
    return torch.log(len(texts) / found.clamp(min=1)) / log(len(texts))


def score_by_words_in_common(model: BertForSequenceClassification, weights: torch.Tensor) -> None:
    """Set the weights so that the score falls with the share of the query's tokens that the passage lacks, before
    anything is learned: by chance no such model finds out in minutes that equal words matter.

    Query and passage differ by a direction `side` of the embeddings. In the first layer a token attends to equal
    tokens, whichever side they are on: one with equals on both sides loses its side, and one unit of the feed-forward
    part marks those that keep the query's. In the last layer the first token attends to the query; the head reads how
    much of the mark it finds.

    Args:
        weights: of each token, in [0, 1]: how much it counts that both sides have it.
    """
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    side, mark = (torch.where(torch.rand(width) < 0.5, -1.0, 1.0) / width**0.5 for _ in range(2))
    same_word = torch.eye(width) - torch.outer(side, side)
    by_head = torch.block_diag(*(torch.outer(part, part) * heads for part in side.chunk(heads)))
    first, last = model.bert.encoder.layer[0], model.bert.encoder.layer[-1]
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.mul_(weights[:, None])
        model.bert.embeddings.position_embeddings.weight.mul_(0.1)
        model.bert.embeddings.token_type_embeddings.weight.copy_(torch.stack([side, -side]))
        for layer, query, key in ((first, _SHARP * same_word, same_word), (last, _WIDE * by_head, by_head)):
            attention = layer.attention
            for linear, wanted in (
                (attention.self.query, query),
                (attention.self.key, key),
                (attention.self.value, torch.eye(width)),
                (attention.output.dense, torch.eye(width)),
            ):
                linear.weight.mul_(0.1).add_(wanted)
            layer.output.dense.weight.mul_(0.1)
        first.intermediate.dense.weight[0] = side
        first.intermediate.dense.bias[0] = -_KEPT * width**0.5
        first.output.dense.weight[:, 0] = 5 * mark
        model.bert.pooler.dense.weight.mul_(0.1).add_(0.2 * torch.eye(width))
        model.classifier.weight.mul_(0.1).sub_(3 * mark[None])


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.make_tiny_encoder", description=__doc__)
    parser.add_argument(
        "--text", required=True, nargs="+", type=Path, help="JSONL files: their strings are the alphabet"
    )
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--words", type=int, default=2000, help="words that become tokens (default %(default)s)")
    parser.add_argument("--hidden", type=int, default=128, help="width, a multiple of 32 (default %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="at least 2 (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if (args.out / "config.json").is_file():
        print(f"model: {args.out} is there")
        return 0
    texts = [text for path in args.text for _, row in read_jsonl(path) for text in strings(row)]
    pad, begin, end = SPECIAL
    tokenizer = make_tokenizer(texts, (), frequent_words(texts, args.words)).backend_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        cls_token=begin,
        sep_token=end,
        model_max_length=_LONGEST,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    torch.manual_seed(args.seed)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 32,
        intermediate_size=2 * args.hidden,
        max_position_embeddings=_LONGEST,
        # BERT's own 0.02 is made for widths of hundreds: with it a narrow model takes long to learn anything.
        initializer_range=args.hidden**-0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=1,
        pad_token_id=fast.pad_token_id,
    )
    model = BertForSequenceClassification(config)
    score_by_words_in_common(model, rarity(fast, texts))
    # Written beside its place first: a model folder is whole or not there.
    partial = args.out.with_name(args.out.name + ".partial")
    fast.save_pretrained(partial)
    model.save_pretrained(partial)
    partial.replace(args.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"model: {parameters / 1e6:.2f} M parameters, {len(fast)} tokens -> {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
