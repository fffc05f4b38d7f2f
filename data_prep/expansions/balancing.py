"""No category crowds out the others. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from data_prep.expansions.examples import Example


def balance(examples: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """Keep at most `most` examples of each category, drawn by a hash of seed, query and lines, in their order; examples
    without a category all stay.

    Args:
        most: None: as many as the median category has.
    """
    by_category: defaultdict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        if example.category:
            by_category[example.category].append(place)
    if not by_category:
        return list(examples)
    limit = most or round(median(map(len, by_category.values())))
    kept = {place for place, example in enumerate(examples) if not example.category}
    for places in by_category.values():
        kept.update(sorted(places, key=lambda place: _draw(examples[place], seed))[:limit])
    return [example for place, example in enumerate(examples) if place in kept]


def _draw(example: Example, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{example.query}\n{example.output}".encode()).digest()
