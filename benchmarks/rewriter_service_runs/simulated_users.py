"""Users who search, read from the top and click: what a test of two rewriters sees of them.

A cascade (Craswell et al., An experimental comparison of click position-bias models, WSDM 2008): a user reads a hit,
may click it, and then reads on or leaves. One passage answers the query; rewriters differ in how often it is first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from export.serving.interleaving import credit, team_draft

LENGTH = 5
READ_ON = 0.8
CLICK_RIGHT, CLICK_WRONG = 0.6, 0.05


@dataclass(frozen=True)
class Rewriter:
    """`top1`: the share of queries whose right passage comes first; `found`: whose right passage is among the hits."""

    top1: float
    found: float


@dataclass(frozen=True)
class Query:
    """The same for both rewriters: where on the scale from easy to hard it lies, and its wrong passages."""

    hardness: float
    below: int
    wrong: tuple[str, ...]


def draw_query(rng: random.Random) -> Query:
    wrong = [f"w{number}" for number in range(8)]
    rng.shuffle(wrong)
    return Query(rng.random(), rng.randrange(1, LENGTH), tuple(wrong))


def hits(rewriter: Rewriter, query: Query) -> list[str]:
    """Return what a rewriter finds: easy queries first, harder ones below, the hardest not at all."""
    found = list(query.wrong[: LENGTH - 1])
    if query.hardness < rewriter.top1:
        return ["right", *found]
    if query.hardness < rewriter.found:
        found.insert(query.below, "right")
        return found
    return list(query.wrong[:LENGTH])


def clicks(shown: Sequence[str], rng: random.Random) -> set[str]:
    """Return what one user clicks."""
    clicked = set()
    for document in shown:
        if rng.random() < (CLICK_RIGHT if document == "right" else CLICK_WRONG):
            clicked.add(document)
            if document == "right":
                break
        if rng.random() > READ_ON:
            break
    return clicked


def success(rewriter: Rewriter, rng: random.Random) -> bool:
    """Show one user one rewriter's hits: is one clicked? That is what an A/B test counts."""
    shown = hits(rewriter, draw_query(rng))
    return bool(clicks(shown, rng))


def vote(a: Rewriter, b: Rewriter, rng: random.Random) -> int:
    """Show one user the interleaved hits: above 0 a wins, below 0 b wins, 0 is a tie."""
    query = draw_query(rng)
    drafted = team_draft(hits(a, query), hits(b, query), LENGTH, str(rng.random()))
    return credit(drafted, clicks([one.document for one in drafted], rng))
