"""Whether splits leak: a second look for queries of one split that are those of another in other clothes.

What counts as alike is what `near_duplicates` says; how it is found is not. Every query is held against every other of
fitting size, without an index that could hide a pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from data_prep.questions.question_sets import QuestionSets, mixed, question_keys, question_sets

_EXAMPLES = 5
_WORDS = 8  # of 64 bits, in the sketch of a set
_DENSITY = 24  # pairs of characters that a word keeps apart well enough
_BLOCK = 1 << 17  # queries held against each other at a time
_SLACK = 1e-9  # on bounds, so that rounding never loses a pair


@dataclass(frozen=True)
class Leak:
    """A query and the one of another split that it is most like. `similarity` is 1 for the same words."""

    split: str
    query: str
    other_split: str
    other_query: str
    similarity: float


@dataclass(frozen=True)
class Leakage:
    """What a check of finished splits found.

    Args:
        threshold: similarity from which queries are near-duplicates; None: only equal words were looked for.
        queries: how many each split has.
        exact: queries that ask what a query of another split asks in the same words, but for case, width, spaces and
            punctuation; each counts once, in the first of the splits.
        near: likewise, others that are near-duplicates.
        examples: a few, the most similar first.
    """

    threshold: float | None
    queries: dict[str, int]
    exact: int
    near: int
    examples: tuple[Leak, ...]

    @property
    def clean(self) -> bool:
        return not self.exact and not self.near

    def __str__(self) -> str:
        held = ", ".join(f"{name} {count}" for name, count in self.queries.items())
        near = "" if self.threshold is None else f" and {self.near} nearly so (similarity {self.threshold:g} or more)"
        line = f"each query of each split against those of the others ({held}): {self.exact} equal{near}"
        if not self.examples:
            return line
        leak = self.examples[0]
        return f"{line}, as {leak.split} {_short(leak.query)} and {leak.other_split} {_short(leak.other_query)}"


def check_leakage(
    train: pa.Array | pa.ChunkedArray,
    held_out: Mapping[str, pa.Array | pa.ChunkedArray],
    threshold: float | None,
    keys: Mapping[str, pa.Array | pa.ChunkedArray] | None = None,
) -> Leakage:
    """Hold the queries of every split against those of every other.

    The time grows with the product of their numbers, and with their length from some 25 characters on: well below a
    minute a core for 300 000 short training queries and 60 000 held out.

    Args:
        train: queries: strings, no nulls.
        held_out: those of each other split.
        threshold: Jaccard similarity in (0, 1], as of `near_duplicates.near_duplicate_groups`; None: equal words only.
        keys: split → the `question_sets.question_keys` of its queries, where they are known.
    """
    texts = {"train": train, **held_out}
    keys = keys or {split: question_keys(queries) for split, queries in texts.items()}
    sets, rows = _rows([keys[split] for split in texts])
    exact = near = 0
    leaks = []
    for place, (split, queries) in enumerate(texts.items()):
        others = dict(zip(list(texts)[place + 1 :], rows[place + 1 :], strict=True))
        if not others:
            continue
        similarity, likest = _likest(sets, rows[place], np.concatenate(list(others.values())), threshold)
        equal = int((rows[place] == likest).sum())
        exact += equal
        near += int((similarity > 0).sum()) - equal
        for worst in np.argsort(-similarity, kind="stable")[:_EXAMPLES].tolist():
            if similarity[worst]:
                other = next(name for name, of_other in others.items() if likest[worst] in of_other)
                other_query = texts[other][int(np.argmax(others[other] == likest[worst]))].as_py()
                alike = round(float(similarity[worst]), 3)
                leaks.append(Leak(split, queries[worst].as_py(), other, other_query, alike))
    leaks.sort(key=lambda leak: -leak.similarity)
    counts = {name: len(queries) for name, queries in texts.items()}
    return Leakage(threshold, counts, exact, near, tuple(leaks[:_EXAMPLES]))


def drop_leaking(
    copies: pa.Array | pa.ChunkedArray, held_out: pa.Array | pa.ChunkedArray, threshold: float | None
) -> np.ndarray:
    """Return which augmented copies must go, for they ask what a held-out query asks, or nearly (`check_leakage`).

    A copy is in the split of the sample that it was made from, wherever a hash of its own words would put it.

    Args:
        copies, held_out: keys of queries (`question_sets.question_keys`).

    Returns:
        bool, one per copy.
    """
    sets, (of_copies, of_held_out) = _rows([copies, held_out])
    return _likest(sets, of_copies, of_held_out, threshold)[0] > 0


def _rows(keys: list[pa.Array | pa.ChunkedArray]) -> tuple[QuestionSets, list[np.ndarray]]:
    """Return the questions of all keys, and for each array the row of every key."""
    chunks = [chunk for array in keys for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])]
    sets, row = question_sets(pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks], pa.string()))
    return sets, np.split(row, np.cumsum([len(array) for array in keys])[:-1])


def _likest(
    sets: QuestionSets, rows: np.ndarray, others: np.ndarray, threshold: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each of `rows` the similarity to the likest of `others`, and which that is; 0 and -1 where none is
    alike."""
    similarity = np.zeros(len(sets.size))
    likest = np.full(len(sets.size), -1)
    same = np.intersect1d(rows, others)
    similarity[same], likest[same] = 1, same
    if threshold is not None:
        for left, right in _maybe_similar(sets, np.setdiff1d(rows, others), np.unique(others), threshold):
            alike = sets.similarity(left, right)
            order = np.argsort(alike, kind="stable")  # so that the likest is written last
            order = order[(alike[order] >= threshold) & (alike[order] > similarity[left[order]])]
            similarity[left[order]], likest[left[order]] = alike[order], right[order]
    return similarity[rows], likest[rows]


def _maybe_similar(
    sets: QuestionSets, rows: np.ndarray, others: np.ndarray, threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of `rows` and `others`, among them all that are similar: of equal facts, and their sketches
    differ in no more bits than similar sets do in pairs. Both ascend, and so do the sizes."""
    sketch = _sketch(sets)
    left: list[np.ndarray] = []
    right: list[np.ndarray] = []
    waiting = 0
    for some, other in _of_equal_facts(sets, rows, others):
        for size in np.unique(sets.size[other[sets.size[other] > 0]]).tolist():
            of_size = other[slice(*np.searchsorted(sets.size[other], [size, size + 1]))]
            bounds = [math.ceil(size * threshold - _SLACK), math.floor(size / threshold + _SLACK) + 1]
            fitting = some[slice(*np.searchsorted(sets.size[some], bounds))]
            differ = np.floor((size + sets.size[fitting]) * ((1 - threshold) / (1 + threshold)) + _SLACK)
            differ = np.minimum(differ, _WORDS * 64).astype(np.uint16)
            for a, b in _within(sketch, fitting, of_size, differ, size):
                left.append(a)
                right.append(b)
                waiting += len(a)
                if waiting > _BLOCK:
                    yield np.concatenate(left), np.concatenate(right)
                    left, right, waiting = [], [], 0
    if left:
        yield np.concatenate(left), np.concatenate(right)


def _of_equal_facts(
    sets: QuestionSets, rows: np.ndarray, others: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `rows` and `others` of the same facts at a time, each ascending as before."""
    rows, others = (some[np.argsort(sets.facts[some], kind="stable")] for some in (rows, others))
    of_rows, of_others = sets.facts[rows], sets.facts[others]
    for value in np.intersect1d(of_rows, of_others):
        ends = (np.searchsorted(of, value, side) for of in (of_rows, of_others) for side in ("left", "right"))
        first, last, other_first, other_last = ends
        yield rows[first:last], others[other_first:other_last]


def _within(
    sketch: np.ndarray, left: np.ndarray, right: np.ndarray, differ: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of `left` and `right` whose sketches differ in no more bits than `differ` says, for each of
    `left`."""
    words = min(_WORDS, 1 << max(0, math.ceil(math.log2(size / _DENSITY))))
    # The coarser sketch: words laid over each other.
    a, b = (
        np.bitwise_or.reduce(sketch[:, some].reshape(_WORDS // words, words, len(some)), axis=0)
        for some in (left, right)
    )
    for x in range(0, len(left), _BLOCK):
        columns = len(left[x : x + _BLOCK])
        step = max(1, _BLOCK // columns)
        for y in range(0, len(right), step):
            bits = np.bitwise_count(b[0, y : y + step, None] ^ a[0, None, x : x + _BLOCK]).astype(np.uint16)
            for word in range(1, words):
                bits += np.bitwise_count(b[word, y : y + step, None] ^ a[word, None, x : x + _BLOCK])
            maybe = np.flatnonzero(bits <= differ[x : x + _BLOCK])
            if len(maybe):
                some, other = x + maybe % columns, y + maybe // columns
                all_bits = np.bitwise_count(sketch[:, left[some]] ^ sketch[:, right[other]]).sum(axis=0)
                maybe = all_bits <= differ[some]
                yield left[some[maybe]], right[other[maybe]]


def _sketch(sets: QuestionSets) -> np.ndarray:
    """Sketch the sets as uint64, words × rows: a bit for each pair of a set, several of which may fall on one."""
    sketch = np.zeros((_WORDS, len(sets.size)), np.uint64)
    for rows, pairs in sets.of_size(0, len(sets.size)):
        bit = mixed(pairs)
        word = (bit >> np.uint64(32)) % np.uint64(_WORDS)
        np.bitwise_or.at(sketch, (word, rows[:, None]), np.uint64(1) << (bit & np.uint64(63)))
    return sketch


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
