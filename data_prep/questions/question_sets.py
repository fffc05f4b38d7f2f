"""Questions as sets of character pairs, a million of them in a few flat arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.questions.facts import facts
from data_prep.questions.split import bare

_CHUNK = 1 << 22  # bytes of text held as Python strings at a time
_UNPACKED = 1 << 20  # pairs of characters unpacked at a time
_CODE = np.uint64(21)  # bits of a code point
_PAIR = np.uint64(42)
_NOTHING = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class QuestionSets:
    """One row a distinct question, smaller sets first. Equal questions are those of equal facts and bare text.

    Args:
        pairs: uint64; two code points each. Row r's set is `pairs[start[r] : start[r] + size[r]]`, ascending.
        start, size: int64.
        facts: uint64, equal where the questions' numbers and negations are.
    """

    pairs: np.ndarray
    start: np.ndarray
    size: np.ndarray
    facts: np.ndarray

    def of_size(self, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield of the rows first:last some of one size at a time: (rows, their pairs as a matrix of rows × size)."""
        for size in np.unique(self.size[first:last]):
            begin, end = first + np.searchsorted(self.size[first:last], [size, size + 1])
            step = max(1, _UNPACKED // max(int(size), 1))
            for some in range(begin, end, step):
                rows = np.arange(some, min(some + step, end))
                yield rows, self.pairs[self.start[rows][:, None] + np.arange(size)]

    def similarity(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Compute the Jaccard similarity of the sets of rows `left` and `right`, one by one."""
        similarity = np.empty(len(left))
        width = max(self.size[left].max(initial=1), self.size[right].max(initial=1))
        step = max(1, _UNPACKED // int(width))
        for begin in range(0, len(left), step):
            some = slice(begin, begin + step)
            joint = np.hstack([self._padded(left[some]), self._padded(right[some])])
            joint.sort(axis=1)  # a pair of both sets now occurs twice
            shared = ((joint[:, 1:] == joint[:, :-1]) & (joint[:, 1:] != _NOTHING)).sum(axis=1)
            similarity[some] = shared / (self.size[left[some]] + self.size[right[some]] - shared)
        return similarity

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        column = np.arange(self.size[rows].max())
        within = column < self.size[rows][:, None]
        return np.where(within, self.pairs[np.where(within, self.start[rows][:, None] + column, 0)], _NOTHING)


def question_keys(queries: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return what counts of each of `queries` (strings, no nulls): its facts, NUL, its bare text.

    This is the dear part of every comparison: a caller who compares the same queries twice keeps it.
    """
    spelt = encoded(queries)
    keys = [
        pa.array([f"{facts(text)}\0{bare(text)}" for text in chunk], pa.string()) for chunk in _chunks(spelt.dictionary)
    ]
    return pa.chunked_array(keys, pa.string()).take(spelt.indices)


def bare_texts(keys: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the bare text of each key."""
    return pc.replace_substring_regex(keys, r"^[^\x00]*\x00", "")


def question_sets(keys: pa.Array | pa.ChunkedArray) -> tuple[QuestionSets, np.ndarray]:
    """Return the distinct questions of `keys` (`question_keys`, maybe `encoded`), and which row each key is (int64)."""
    question = encoded(keys)
    of_query = question.indices.to_numpy()
    pa.default_memory_pool().release_unused()  # the sets take its place
    sets, place = _as_sets(question.dictionary)
    return sets, place[of_query]


def mixed(values: np.ndarray) -> np.ndarray:
    """Hash uint64 values with the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def encoded(texts: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """Encode strings by the distinct ones among them; what is encoded stays."""
    if isinstance(texts, pa.DictionaryArray):
        return texts
    coded = pc.dictionary_encode(texts)
    return coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded


def _chunks(texts: pa.Array) -> Iterator[list[str]]:
    ends = np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64)
    starts = np.unique(ends // _CHUNK, return_index=True)[1].tolist()
    for first, last in itertools.pairwise([*starts, len(texts)]):
        yield texts[first:last].to_pylist()


def _as_sets(keys: pa.Array) -> tuple[QuestionSets, np.ndarray]:
    """Return the sets of questions given as facts, NUL and bare text; and the row of each."""
    pairs = np.empty(max(pc.sum(pc.utf8_length(keys)).as_py() or 0, 1), np.uint64)  # untouched pages cost nothing
    marks, sizes, end = [], [np.empty(0, np.int64)], 0
    for chunk in _chunks(keys):
        marks.append(pa.array([key.partition("\0")[0] for key in chunk], pa.string()))
        found, size = _character_pairs([key.partition("\0")[2] for key in chunk])
        pairs[end : end + len(found)] = found
        sizes.append(size)
        end += len(found)
    size = np.concatenate(sizes)
    order = np.argsort(size, kind="stable")
    start = np.cumsum(size) - size
    mark = encoded(pa.chunked_array(marks, pa.string())).indices.to_numpy().astype(np.uint64)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return QuestionSets(pairs, start[order], size[order], mixed(mark + np.uint64(1))[order]), place


def _character_pairs(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the texts' sets one after another, and their sizes. A text of one character is the set of that
    character."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    last = np.cumsum(lengths)[lengths > 0] - 1
    follower = np.append(codes[1:], np.uint64(0))
    follower[last] = 0
    is_pair = np.ones(len(codes), bool)
    is_pair[last[lengths[lengths > 0] > 1]] = False
    row = np.repeat(np.arange(len(texts), dtype=np.uint64), lengths)
    found = (row << _PAIR | codes << _CODE | follower)[is_pair]
    found.sort()
    found = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    sizes = np.bincount((found >> _PAIR).astype(np.int64), minlength=len(texts))
    return found & ((np.uint64(1) << _PAIR) - np.uint64(1)), sizes
