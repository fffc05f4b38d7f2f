"""Which rows become training prompts: stratified, with at least a given share of high-risk ones. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor

from data_prep.medical.rows import MedicalRow

Stratum = tuple[str, str]


@dataclass(frozen=True)
class Draw:
    """`rows` in the order of the files. `left_out`: rows of each stratum that were there and not drawn."""

    rows: tuple[MedicalRow, ...]
    left_out: Counter[Stratum]

    @property
    def high_risk_share(self) -> float:
        return sum(row.high_risk for row in self.rows) / len(self.rows) if self.rows else 0.0


def stratum(row: MedicalRow) -> Stratum:
    """Return where a row belongs: its file and its category."""
    return row.source, row.category or "-"


def draw_prompts(rows: Sequence[MedicalRow], most: int, share: float, seed: int) -> Draw:
    """Draw at most `most` rows, of which at least `share` are high-risk.

    The high-risk rows are drawn first: as many as their natural share, and no fewer than `share` asks for. Where they
    are too few, everyday rows are left out until the share is kept. Within either kind each stratum gives in proportion
    to its size, and at least one row where there is room.

    >>> draw = draw_prompts(ten_red_and_ninety_everyday_rows, most=50, share=0.4, seed=0)
    >>> len(draw.rows), draw.high_risk_share
    (25, 0.4)
    """
    risky, everyday = [row for row in rows if row.high_risk], [row for row in rows if not row.high_risk]
    wanted = min(most, len(rows))
    least = -floor(-share * wanted + 1e-9)  # rounded up
    risky_count = min(len(risky), max(least, round(wanted * len(risky) / max(1, len(rows)))))
    everyday_count = min(len(everyday), wanted - risky_count)
    if share > 0:
        everyday_count = min(everyday_count, floor(risky_count * (1 - share) / share + 1e-9))
    if everyday_count + risky_count < wanted:  # room that everyday rows leave
        risky_count = min(len(risky), wanted - everyday_count)
    drawn = {*_spread(risky, risky_count, seed), *_spread(everyday, everyday_count, seed)}
    chosen = tuple(row for row in rows if _key(row) in drawn)
    return Draw(chosen, Counter(stratum(row) for row in rows if _key(row) not in drawn))


def _spread(rows: Sequence[MedicalRow], count: int, seed: int) -> set[tuple[str, int]]:
    """Choose `count` rows, of each stratum in proportion (largest remainders), drawn by a seeded hash."""
    strata: dict[Stratum, list[MedicalRow]] = {}
    for row in rows:
        strata.setdefault(stratum(row), []).append(row)
    quotas = {name: count * len(members) / len(rows) for name, members in strata.items()}
    given = {name: min(len(strata[name]), max(floor(quota), 1)) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: (floor(quotas[name]) - quotas[name], name))
    # Too many where small strata were rounded up to one: the largest give; too few: the largest remainders get.
    while sum(given.values()) > count:
        largest = max(given, key=lambda name: (given[name], name))
        given[largest] -= 1
    while sum(given.values()) < count:
        for name in by_remainder:
            if sum(given.values()) < count and given[name] < len(strata[name]):
                given[name] += 1
    return {_key(row) for name, members in strata.items() for row in sorted(members, key=_chance(seed))[: given[name]]}


def _chance(seed: int) -> Callable[[MedicalRow], str]:
    return lambda row: hashlib.sha256(f"{seed}\n{row.source}\n{row.question}".encode()).hexdigest()


def _key(row: MedicalRow) -> tuple[str, int]:
    return row.source, row.row
