"""Team-draft interleaving: two ranked lists become one, and clicks say which list people like.

Radlinski, Kurup and Joachims, How does clickthrough data reflect retrieval quality? (CIKM 2008), section 3.2.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Team = Literal["a", "b"]


@dataclass(frozen=True)
class Drafted:
    """A document of the interleaved list and the team that picked it."""

    document: str
    team: Team


def team_draft(a: Sequence[str], b: Sequence[str], length: int, seed: str) -> list[Drafted]:
    """Interleave two lists of distinct documents into at most `length` places.

    In each round a coin decides which team picks first; a team picks its best document that is not in the list yet. A
    team that has none left passes. The coins depend on `seed` alone: the same request has the same list.
    """
    coins = random.Random(seed)
    rankings: dict[Team, Sequence[str]] = {"a": a, "b": b}
    drafted: list[Drafted] = []
    taken: set[str] = set()
    while len(drafted) < length:
        order: tuple[Team, Team] = ("a", "b") if coins.random() < 0.5 else ("b", "a")
        picked = False
        for team in order:
            best = next((document for document in rankings[team] if document not in taken), None)
            if best is not None and len(drafted) < length:
                drafted.append(Drafted(best, team))
                taken.add(best)
                picked = True
        if not picked:
            break
    return drafted


def credit(drafted: Sequence[Drafted], clicked: Collection[str]) -> int:
    """Return how many more clicked documents team a picked than team b: above 0 a wins, below 0 b wins, 0 is a tie."""
    return sum(1 if one.team == "a" else -1 for one in drafted if one.document in clicked)
