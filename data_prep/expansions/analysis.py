"""What a set of expansions is like: sizes, kinds, languages, categories, repeated queries, templated lines. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_prep.expansions.examples import Example, irregular
from data_prep.questions.split import bare
from reward.expansion.language import language_of, words
from reward.expansion.parser import KINDS

TEMPLATE_FROM = 5  # lines alike but for the words of their queries make a template
SHORT = 2  # words of a short query, at most
_NUMBER = re.compile(r"\d+")


def analyse(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the counts, as JSON holds them."""
    queries = Counter(bare(example.query) for example in examples)
    templated = templated_lines(examples)
    languages = Counter(language_of(example.query) for example in examples)
    return {
        "examples": len(examples),
        "distinct_queries": len(queries),
        "repeated_queries": sum(1 for count in queries.values() if count > 1),
        "languages": dict(languages.most_common()),
        "short_queries": sum(len(_words(example.query)) <= SHORT for example in examples),
        "categories": dict(Counter(example.category or "" for example in examples).most_common()),
        "lines": {kind: _sizes(_texts(examples, kind)) for kind in KINDS},
        "irregular": dict(Counter(where for example in examples for where in irregular(example)).most_common()),
        "templated_lines": sum(templated.values()),
        "templates": dict(templated.most_common(10)),
    }


def templated_lines(examples: Iterable[Example]) -> Counter[str]:
    """Return the templates of five or more lines and how many lines each has: the line with `…` in the place of the
    words of its query, and `#` in that of numbers."""
    found: Counter[str] = Counter()
    for example in examples:
        asked = set(_words(example.query))
        for kind, text in example.output:
            said = [word if word not in asked else "…" for word in _words(text)]
            if "…" in said:
                pattern = re.sub(r"…(?: …)+", "…", " ".join(said))
                found[f"{kind}: {_NUMBER.sub('#', pattern)}"] += 1
    return Counter({pattern: count for pattern, count in found.items() if count >= TEMPLATE_FROM})


def _words(text: str) -> tuple[str, ...]:
    return words(text, language_of(text))


def _texts(examples: Sequence[Example], kind: str) -> list[list[str]]:
    return [[text for one, text in example.output if one == kind] for example in examples]


def _sizes(texts: list[list[str]]) -> dict[str, float]:
    """Return how many lines there are, the share of examples with any, and the quartiles of their characters."""
    lengths = [len(text) for lines in texts for text in lines]
    low, middle, high = (round(float(at)) for at in np.percentile(lengths, (25, 50, 75))) if lengths else (0, 0, 0)
    return {
        "lines": len(lengths),
        "examples": round(sum(map(bool, texts)) / max(1, len(texts)), 4),
        "characters_p25": low,
        "characters_p50": middle,
        "characters_p75": high,
    }
