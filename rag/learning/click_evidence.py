"""What clicks say for sure of a query and a passage. Pure.

A pair is a query, normalised, and a passage. Rows about the same passage in one list of results are one showing,
clicked when one of them is. A list is known by its request id, else by the query and a time of day. One-sided 95 %
bounds (Wilson 1927) of the click rate decide:

    positive   lower bound of clicked / shown  ≥ POSITIVE_RATE
    negative   upper bound of clicked / seen   ≤ NEGATIVE_RATE
    each of at least MIN_SHOWN; everything else is ambiguous

`seen`: with positions, a showing counts when it was clicked or stood above a click of the same list ("skipped above a
click", Joachims 2002); without, every showing counts. The rules and constants are those that reranker training's click
logs are read by.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rag.catalogue.clicks import Click
from rag.documents.tokenizer import normalize_text

MIN_SHOWN, POSITIVE_RATE, NEGATIVE_RATE = 3, 0.3, 0.2
_Z = 1.6449  # of a one-sided 95 % bound
_TIME_OF_DAY = re.compile(r"[T ](?!00:00)\d\d:\d\d")

Label = Literal["positive", "negative", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Pair:
    """`clicked` ≤ `seen` ≤ `shown`, in showings."""

    query: str
    passage_key: str
    shown: int
    seen: int
    clicked: int
    label: Label


def wilson_bound(clicked: int, shown: int, sign: Literal[-1, 1]) -> float:
    """Lower (-1) or upper (1) one-sided 95 % bound of a rate seen in `shown` > 0 showings."""
    rate, z2 = clicked / shown, _Z**2
    spread = _Z * math.sqrt(rate * (1 - rate) / shown + z2 / (4 * shown * shown))
    return (rate + z2 / (2 * shown) + sign * spread) / (1 + z2 / shown)


def normalize_query(query: str) -> str:
    """Write alike the queries that differ only in case, width or spaces."""
    return " ".join(normalize_text(query).split())


def weigh_clicks(clicks: Iterable[Click]) -> list[Pair]:
    """Weigh the clicks of one knowledge base: pairs by query and passage."""
    shows: dict[tuple[str, str], dict[str, tuple[bool, int | None]]] = defaultdict(dict)  # (query, list) → passage →
    for number, click in enumerate(clicks):
        name = f"request {click.request_id}" if click.request_id else click.at
        if not click.request_id and not _TIME_OF_DAY.search(click.at):
            name = f"\0{number}"  # a list of its own: nothing tells which others it was shown with
        show = shows[normalize_query(click.query), name]
        clicked, position = show.get(click.passage_key, (False, None))
        places = [place for place in (position, click.position) if place is not None]
        show[click.passage_key] = clicked or click.clicked, min(places, default=None)
    shown, seen, clicked_in = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for (query, name), show in shows.items():
        lowest = max((place for clicked, place in show.values() if clicked and place is not None), default=0)
        for key, (clicked, place) in show.items():
            pair = query, key
            shown[pair] += 1
            seen[pair] += clicked or place is None or name.startswith("\0") or place < lowest
            clicked_in[pair] += clicked
    return [
        Pair(*pair, n, seen[pair], clicked_in[pair], _label(n, seen[pair], clicked_in[pair]))
        for pair, n in sorted(shown.items())
    ]


def _label(shown: int, seen: int, clicked: int) -> Label:
    if shown >= MIN_SHOWN and wilson_bound(clicked, shown, -1) >= POSITIVE_RATE:
        return "positive"
    if seen >= MIN_SHOWN and wilson_bound(clicked, seen, 1) <= NEGATIVE_RATE:
        return "negative"
    return "ambiguous"
