"""Names of drugs in a text, with the list that each is on. Pure."""

from __future__ import annotations

from functools import lru_cache

from reward.medical.lexicons import Lexicons
from reward.medical.reading import Reading, Span

_VERBS = "吃服用打加换的点些给是和或与及了开买含如像您你他她我把将需要可以先再就片粒"


@lru_cache(maxsize=4096)
def _drugs_in_text(text: str, lexicons: Lexicons) -> tuple[tuple[str, str, Span], ...]:
    found, taken = [], set[int]()
    lists = {
        "prescription": lexicons.drugs.prescription,
        "over_the_counter": lexicons.drugs.over_the_counter,
        "supplement": lexicons.drugs.supplement,
    }
    for kind, patterns in lists.items():
        for match in lexicons.any_of(patterns).finditer(text):
            # A stem takes up to three characters before it: 吃阿莫西林.
            start, drug = match.start(), lexicons.any_of(patterns)
            while text[start] in _VERBS and drug.fullmatch(text, start + 1, match.end()):
                start += 1
            name, span = text[start : match.end()], (start, match.end())
            if taken.isdisjoint(range(*span)):
                taken.update(range(*span))
                found.append((kind, name, span))
    return tuple(sorted(found, key=lambda item: item[2]))


def drugs_in(reading: Reading, span: Span, lexicons: Lexicons) -> list[tuple[str, str, Span]]:
    """Return the drugs that a stretch of a text names: (list, name, place), in their order."""
    start, end = span
    return [
        (kind, name, (first + start, last + start))
        for kind, name, (first, last) in _drugs_in_text(reading.text[start:end], lexicons)
    ]
