"""Synonym augmentation: copies of training samples with some words swapped.

Each of the tenant's words is swapped with a probability, in query and rewrite alike and for the same
synonym. Words are segmented first, so that 吃→服用 leaves 吃饭 and 好吃 alone; a protected term is never touched. Call
it after the split, with training samples only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jieba

from reward.records.sample import Sample

jieba.setLogLevel("ERROR")


def augment(
    samples: Iterable[Sample],
    synonyms: Mapping[str, Sequence[str]],
    protected_terms: Sequence[str],
    swap_probability: float,
    seed: int,
) -> Iterator[Sample]:
    """Yield new samples only, marked `metadata.augmented` and named `<source id>_aug`; the given samples stay as they
    are.

    A sample in which no word was swapped yields none. The draw depends on `seed` and the sample's texts, not on its
    place, so adding data changes no earlier copy.
    """
    words = {word: tuple(choices) for word, choices in synonyms.items() if choices and word not in protected_terms}
    segmenter = jieba.Tokenizer()
    for term in (*protected_terms, *words):
        segmenter.add_word(term)
    for sample in samples:
        draw = random.Random(f"{seed}\n{sample.original_query}\n{sample.rewritten_query}")
        # Every word draws, found or not: which words a text holds must not shift the draws of the others.
        swaps = {w: draw.choice(words[w]) for w in sorted(words) if draw.random() < swap_probability}
        query = _swap(segmenter, sample.original_query, swaps)
        rewrite = _swap(segmenter, sample.rewritten_query, swaps)
        if (query, rewrite) == (sample.original_query, sample.rewritten_query):
            continue
        metadata = sample.metadata.model_copy(update={"augmented": True})
        yield sample.model_copy(
            update={
                "sample_id": f"{sample.sample_id}_aug",
                "original_query": query,
                "rewritten_query": rewrite,
                "metadata": metadata,
            }
        )


def _swap(segmenter: jieba.Tokenizer, text: str, swaps: Mapping[str, str]) -> str:
    if not any(word in text for word in swaps):
        return text  # segmenting is the dear part
    return "".join(swaps.get(word, word) for word in segmenter.cut(text))
