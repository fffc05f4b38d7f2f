"""Queries that ask the same in nearly the same words: the groups of an exact similarity join.

Two queries are near-duplicates when the Jaccard similarity of the sets of character pairs of their bare texts reaches a
threshold t and both hold the same numbers and negations: "一天吃2片" and "一天吃3片" are different questions.

Every such pair is found, by pigeonhole (PartEnum: Arasu, Ganti & Kaushik, VLDB 2006): similar sets of at most m pairs
differ in at most h = floor(2m(1 - t)/(1 + t)) of them. Hash the pairs into h + j parts and at least j of the parts are
equal in both sets, so similar queries agree in some choice of j parts. Only queries that do, a bucket, are compared.
MinHash finds nearly all pairs, in several times the memory, and a leak that it misses would stop the build.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.questions.question_sets import QuestionSets, encoded, mixed, question_keys, question_sets

_CHOICES = 36  # of parts, at most: each costs a sort of the queries, and the more parts the fewer comparisons
_CHOSEN = 6  # parts in a choice, at most
_WIDTH = 1.15  # largest to smallest size of the sets joined at a time
_NEIGHBOURS = 16  # places apart in a bucket, within which every two queries are compared
_CANDIDATES = 1 << 19  # pairs compared at a time
_WORDS = 8  # of 64 bits, in the sketch of a set, at most
_SLACK = 1e-9  # on bounds, so that rounding never loses a pair


def near_duplicate_groups(queries: pa.Array | pa.ChunkedArray, threshold: float) -> np.ndarray:
    """Return the group of every query (strings, no nulls): see `groups_of_keys`."""
    return groups_of_keys(encoded(question_keys(queries)), threshold)


def groups_of_keys(keys: pa.DictionaryArray, threshold: float) -> np.ndarray:
    """Return the group of every query: the connected components of the graph of all near-duplicate pairs.

    The result is exact and so depends neither on the order of the queries nor on a seed. Members of a group may be
    alike only by way of others. Copies that differ in case, width, spaces and punctuation alone share a group, unless
    that changes a number ("1.5片" and "15片").

    Cost: members of one group are not compared again and large buckets are searched by their rarest pairs, so neither
    ten thousand copies of one query nor ten thousand fillings of one template are compared each with each. What stays
    quadratic are buckets in which every pair of characters is common. Lower thresholds leave larger buckets: 0.7 takes
    twice as long as 0.8; below 0.6, with hundreds of thousands of queries, it is minutes.

    Args:
        keys: of the queries (`question_sets.question_keys`), encoded: of several alike, one is held.
        threshold: Jaccard similarity in (0, 1].

    Returns:
        int64 group ids, from 0, one per query.

    Raises:
        ValueError: `threshold` is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: outside (0, 1]")
    sets, row_of_query = question_sets(keys)
    group = np.arange(len(sets.size))
    for first, last in _size_classes(sets.size, threshold):
        ids, own = np.unique(group[first:last], return_inverse=True)
        joined = ids[_SizeClass(sets, first, last, threshold).join(own)]
        group = _merged(group, group[first:last], joined)
    return np.unique(group[row_of_query], return_inverse=True)[1].astype(np.int64)


def _size_classes(size: np.ndarray, threshold: float) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows, of ascending `size`, such that every two similar rows are together in one of them."""
    begin = int(np.searchsorted(size, 1))  # an empty query is like no other
    while begin < len(size):
        smallest = int(size[begin])
        end = int(np.searchsorted(size, max(smallest, math.floor(smallest * _WIDTH)), side="right"))
        # A row of begin:end is like no row below `first`.
        first = int(np.searchsorted(size, math.ceil(smallest * threshold - _SLACK)))
        if end - first > 1:
            yield first, end
        begin = end


class _SizeClass:
    """Sets of similar size, which are joined with each other. Rows count from the first of them."""

    def __init__(self, sets: QuestionSets, first: int, last: int, threshold: float):
        self._sets = sets
        self._first = first
        self._threshold = threshold
        self._size = sets.size[first:last]
        self._facts = sets.facts[first:last]
        largest = int(self._size[-1])
        differ = int(self._most_different(np.array(2 * largest)))
        self._chosen = max(j for j in range(1, _CHOSEN + 1) if j == 1 or math.comb(differ + j, j) <= _CHOICES)
        # A part is the sum of its pairs' hashes. Sketches differ in no more bits than their sets do in pairs.
        self._parts = np.zeros((differ + self._chosen, last - first), np.uint64)
        words = min(_WORDS, 1 + largest // 24)
        self._sketch = np.zeros((words, last - first), np.uint64)
        for rows, pairs in sets.of_size(first, last):
            hashed, bit = mixed(pairs), mixed(~pairs)
            at = rows[:, None] - first
            np.add.at(self._parts, ((hashed >> np.uint64(32)) % np.uint64(len(self._parts)), at), hashed)
            word = (bit >> np.uint64(32)) % np.uint64(words)
            np.bitwise_or.at(self._sketch, (word, at), np.uint64(1) << (bit & np.uint64(63)))

    def join(self, group: np.ndarray) -> np.ndarray:
        """Merge the groups of similar rows and return `group` with them: an id below the number of rows for each of
        them."""
        for choice in itertools.combinations(self._parts, self._chosen):
            key = self._facts.copy()
            for part in choice:
                key += part
            group = self._join_buckets(group, key)
        return group

    def _join_buckets(self, group: np.ndarray, key: np.ndarray) -> np.ndarray:
        # Rows of equal key are a bucket; rows alone in theirs are like no other.
        row = np.argsort(key)
        key = key[row]
        with_next = key[1:] == key[:-1]
        shared = np.append(with_next, False) | np.append(False, with_next)
        row, key = row[shared], key[shared]
        if not len(row):
            return group
        begin = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        bucket = np.repeat(np.arange(len(begin)), np.diff(begin, append=len(row)))
        # Compare neighbours at growing distances: small buckets are done soon, and merged groups are skipped.
        distance = 1
        place = np.flatnonzero(bucket[1:] == bucket[:-1])
        found: list[tuple[np.ndarray, np.ndarray]] = []
        while len(place) and distance <= _NEIGHBOURS:
            found.append(self._similar(group, row[place], row[place + distance]))
            if distance.bit_count() == 1:  # now and then: groups made one need no further comparison
                group = _merged(group, *(group[np.concatenate(side)] for side in zip(*found, strict=True)))
                found.clear()
                place = place[_several(group[row], begin)[bucket[place]]]
            distance += 1
            place = place[place + distance < len(row)]
            place = place[bucket[place] == bucket[place + distance]]
        for left, right in found:
            group = _merged(group, group[left], group[right])
        # What is left are large buckets of different groups: search those by their rarest pairs.
        large = np.isin(bucket, bucket[place])
        return self._join_by_rarest(group, row[large], bucket[large]) if large.any() else group

    def _join_by_rarest(self, group: np.ndarray, row: np.ndarray, bucket: np.ndarray) -> np.ndarray:
        """Join within large buckets. The rarest pair (by its count in the bucket) that two similar sets share is among
        the rarest few of either (prefix filter, with the bounds of PPJoin: Xiao et al., WWW 2008)."""
        order = np.argsort(row)
        row, bucket = row[order], bucket[order]
        size = self._size[row]
        end = np.cumsum(size)
        at = np.repeat(self._sets.start[self._first + row] - end + size, size) + np.arange(end[-1])
        pair = mixed(self._sets.pairs[at]) + np.repeat(mixed(bucket.astype(np.uint64)), size)
        _, pair, count = np.unique(pair, return_inverse=True, return_counts=True)
        rarity = np.argsort(np.argsort(count, kind="stable"))[pair]
        smaller, larger = [], []  # entries: rarity of a pair × row, in one number
        for n in np.unique(size).tolist():
            first, last = np.searchsorted(size, [n, n + 1])
            rarest = np.sort(rarity[end[first] - n : end[last - 1]].reshape(-1, n), axis=1)
            lone = int(self._most_different(np.array(2 * n))) // 2  # pairs that a larger set lacks, at most
            lacking = n - math.ceil(n * self._threshold - _SLACK)  # pairs that a smaller set lacks, at most
            entries = rarest * len(row) + np.arange(first, last)[:, None]
            smaller.append(entries[:, : lone + 1].ravel())
            larger.append(entries[:, : lacking + 1].ravel())
        entry, partner = np.concatenate(smaller), np.sort(np.concatenate(larger))
        begin = np.flatnonzero(np.diff(partner // len(row), prepend=-1))
        several = np.repeat(_several(group[row[partner % len(row)]], begin), np.diff(begin, append=len(partner)))
        entry = entry[several[np.searchsorted(partner, entry)]]
        # The partners of an entry: the larger sets that hold its pair.
        low = np.searchsorted(partner, entry, side="right")
        partners = np.searchsorted(partner, (entry // len(row) + 1) * len(row)) - low
        for some in _slices(partners, _CANDIDATES):
            left = np.repeat(entry[some] % len(row), partners[some])
            skipped = np.cumsum(partners[some]) - partners[some]
            right = partner[np.repeat(low[some] - skipped, partners[some]) + np.arange(len(left))] % len(row)
            left, right = self._similar(group, row[left], row[right])
            group = _merged(group, group[left], group[right])
        return group

    def _similar(self, group: np.ndarray, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return those of the pairs of rows (left, right) that are similar and not in one group yet."""
        apart = group[left] != group[right]
        left, right = left[apart], right[apart]
        differ = self._most_different(self._size[left] + self._size[right])
        for word in self._sketch:
            differ -= np.bitwise_count(word[left] ^ word[right])
        maybe = (differ >= 0) & (self._facts[left] == self._facts[right])
        left, right = left[maybe], right[maybe]
        similar = self._sets.similarity(self._first + left, self._first + right) >= self._threshold
        return left[similar], right[similar]

    def _most_different(self, total: np.ndarray) -> np.ndarray:
        """Return in how many pairs two similar sets differ at most, if their sizes sum to `total`."""
        return np.floor(total * ((1 - self._threshold) / (1 + self._threshold)) + _SLACK).astype(np.int64)


def _several(group: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Return whether each run of `group`, from one of `begin` to the next, holds more than one group."""
    return np.minimum.reduceat(group, begin) != np.maximum.reduceat(group, begin)


def _slices(counts: np.ndarray, limit: int) -> Iterator[slice]:
    """Yield consecutive slices of `counts` that sum to no more than `limit`, where a single count does not exceed
    it."""
    sums = np.cumsum(counts)
    begin = done = 0
    while begin < len(counts):
        end = max(begin + 1, int(np.searchsorted(sums, done + limit, side="right")))
        yield slice(begin, end)
        begin, done = end, int(sums[end - 1])


def _merged(group: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Merge the groups `left` and `right`, pair by pair, and return `group` with them; a group's id is the lowest of
    those in it."""
    apart = left != right
    if not apart.any():
        return group
    ids, node = np.unique(np.stack([left[apart], right[apart]]), return_inverse=True)
    edges = coo_array((np.ones(node.shape[1], np.int8), tuple(node)), shape=(len(ids), len(ids)))
    component = connected_components(edges, directed=False)[1]
    lowest = np.full(len(ids), len(group))
    np.minimum.at(lowest, component, ids)
    renamed = np.arange(int(group.max()) + 1)
    renamed[ids] = lowest[component]
    return renamed[group]
