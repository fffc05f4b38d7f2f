"""Draw each query's group of passages, from (seed, epoch) alone: a run that was cut off draws the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reranker.data.records import Passage, Record, fold
from reranker.settings.run import GroupSettings

_MEGABATCH = 16  # batches among which groups of like length are brought together


@dataclass(frozen=True, slots=True)
class Group:
    """A query and its passages, of which the first `positives` answer it."""

    query: str
    passages: tuple[Passage, ...]
    positives: int

    @property
    def length(self) -> int:
        """Characters of the longest pair: what the batch is padded to, roughly."""
        return len(self.query) + max(len(passage.text) for passage in self.passages)


class Sampler:
    """Groups of the training records.

    Args:
        records: of training.
        mined: hard negatives of each record beyond its own.
        pool: passages that random negatives are drawn from.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mined: Sequence[Sequence[Passage]],
        pool: Sequence[Passage],
        settings: GroupSettings,
        seed: int,
    ) -> None:
        self._records, self._pool, self._settings, self._seed = records, pool, settings, seed
        self._folded = [fold(passage.text) for passage in pool]
        self._hard: list[list[Passage]] = []
        for record, more in zip(records, mined, strict=True):
            answers = {fold(one.text) for one in record.positives}
            unique = {fold(one.text): one for one in (*record.negatives, *more)}
            self._hard.append([one for text, one in unique.items() if text not in answers])

    def __len__(self) -> int:
        return len(self._records)

    def groups(self, epoch: int) -> list[Group]:
        """Return the groups of an epoch, one a record, in the records' order."""
        return [self._group(index, epoch) for index in range(len(self._records))]

    def _group(self, index: int, epoch: int) -> Group:
        record, settings = self._records[index], self._settings
        rng = np.random.default_rng([self._seed, epoch, index])
        positives = _some(rng, record.positives, settings.positives)
        hard = _some(rng, self._hard[index], settings.hard)
        taken = {fold(one.text) for one in (*record.positives, *hard)}
        random: list[Passage] = []
        # What hard negatives lack, random ones make up for; the pool may be too small for all.
        missing = settings.hard + settings.random - len(hard)
        for place in _places(rng, len(self._pool), missing + len(taken)):
            if len(random) < missing and self._folded[place] not in taken:
                random.append(self._pool[place])
        return Group(record.query, (*positives, *hard, *random), len(positives))


def batches(groups: Sequence[Group], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the epoch's batches of group indices: shuffled, then groups of like length brought together within
    16 batches, so that little padding is computed; the batches in an order of their own."""
    rng = np.random.default_rng([seed, epoch, 2**31])
    order = rng.permutation(len(groups))
    lengths = np.array([group.length for group in groups])
    found: list[list[int]] = []
    for start in range(0, len(order), size * _MEGABATCH):
        part = order[start : start + size * _MEGABATCH]
        part = part[np.argsort(lengths[part], kind="stable")]
        found += [part[i : i + size].tolist() for i in range(0, len(part), size)]
    return [found[i] for i in rng.permutation(len(found))]


def candidate_lists(
    records: Sequence[Record],
    mined: Sequence[Sequence[Passage]],
    pool: Sequence[Passage],
    candidates: int,
    seed: int,
) -> list[Group]:
    """Return what each record is validated on, always the same: all its passages, then mined ones, then random ones up
    to `candidates`."""
    found = []
    for index, (record, more) in enumerate(zip(records, mined, strict=True)):
        unique = {fold(one.text): one for one in (*record.positives, *record.negatives)}
        rng = np.random.default_rng([seed, 2**31 + 1, index])
        drawn = (pool[place] for place in _places(rng, len(pool), candidates + len(unique)))
        for passage in (*more, *drawn):
            if len(unique) >= candidates:
                break
            unique.setdefault(fold(passage.text), passage)
        found.append(Group(record.query, tuple(unique.values()), len(record.positives)))
    return found


def _some(rng: np.random.Generator, passages: Sequence[Passage], n: int) -> list[Passage]:
    return [passages[place] for place in rng.permutation(len(passages))[:n]]


def _places(rng: np.random.Generator, size: int, n: int) -> list[int]:
    """Draw up to `n` different places of `size`."""
    return [int(place) for place in rng.choice(size, min(n, size), replace=False)] if size else []
