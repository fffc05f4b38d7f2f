"""Which rows a page of bounded size shows, and the counts of all of them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from evaluation.inspection.rows import Row


@dataclass
class Counts:
    """Over every row of the log, shown or not."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)
    slices: Counter[str] = field(default_factory=Counter)
    first_step: int | None = None
    last_step: int | None = None

    def add(self, row: Row) -> None:
        self.rows += 1
        self.kinds[row.kind] += 1
        self.anomalies.update(row.anomalies)
        self.slices.update(row.slices)
        if row.step is not None:
            self.first_step = row.step if self.first_step is None else min(self.first_step, row.step)
            self.last_step = row.step if self.last_step is None else max(self.last_step, row.step)


class Choice:
    """Keep at most `most` rows of a stream: up to half of them for anomalies, the rarest first, the rest at random.

    Memory: `most` rows for the stream and a share of `most` for each anomaly. Reservoir sampling (Vitter 1985), seeded.
    """

    def __init__(self, most: int, seed: int = 0):
        self.counts = Counts()
        self._most = most
        self._chance = random.Random(seed)
        self._any: list[Row] = []
        self._odd: dict[str, list[Row]] = {}

    def add(self, row: Row) -> None:
        self.counts.add(row)
        self._keep(self._any, row, self.counts.rows, self._most)
        for name in row.anomalies:
            self._keep(self._odd.setdefault(name, []), row, self.counts.anomalies[name], max(1, self._most // 8))

    def rows(self) -> list[Row]:
        """Return the rows kept, in the order of the log."""
        chosen: dict[int, Row] = {}
        if self.counts.rows > self._most:
            for name in sorted(self._odd, key=lambda name: self.counts.anomalies[name]):
                for row in self._odd[name]:
                    if len(chosen) < self._most // 2:
                        chosen.setdefault(row.number, row)
        for row in self._any:
            if len(chosen) < self._most:
                chosen.setdefault(row.number, row)
        return [chosen[number] for number in sorted(chosen)]

    def _keep(self, kept: list[Row], row: Row, seen: int, most: int) -> None:
        if len(kept) < most:
            kept.append(row)
        elif (place := self._chance.randrange(seen)) < most:
            kept[place] = row
