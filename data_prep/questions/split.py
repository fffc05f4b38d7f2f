"""Which split a sample belongs to: a stable hash of its own words, so that adding data moves no sample.

The unit interval is laid out test, val, train from 0. SFT takes 10 % test, 10 % val; RL takes 10 % val from the same
end, so RL validates on what SFT held out and never on what SFT learnt from.

Near-duplicates hash to different places. Of a group that spans several splits only the most held-out side stays and the
others are dropped (`leaks`): moving them instead would make a sample's split depend on what else has been collected.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plain_text.marks import bound_marks

Split = Literal["train", "val", "test"]
Shares = tuple[tuple[Split, float], ...]
SFT_SHARES: Shares = (("test", 0.1), ("val", 0.1), ("train", 0.8))
RL_SHARES: Shares = (("val", 0.1), ("train", 0.9))

_MOST_HELD_OUT_FIRST: tuple[Split, ...] = ("test", "val", "train")


class _Kept(dict[int, int | None]):
    """For `str.translate`: punctuation, spaces and control characters go, all else stays. Filled as text is met."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


_KEPT = _Kept()


def nfkc_casefold(text: str) -> str:
    """Write full-width and half-width, upper and lower case in one way (NFKC, case folded)."""
    return unicodedata.normalize("NFKC", bound_marks(text)).casefold()


def bare(text: str) -> str:
    """Return the folded text without punctuation, spaces and control characters; one of nothing else stays as it is."""
    folded = nfkc_casefold(text)
    return folded.translate(_KEPT) or folded


def assign_split(query: str, shares: Shares, seed: int) -> Split:
    """Assign a query to a split, by its words alone: its context does not count.

    Args:
        query: as asked; only its `bare` text counts.
        shares: laid end to end over [0, 1), together 1.
    """
    return _split_at(_position(bare(query), seed), shares)


def assign_splits(queries: pa.Array | pa.ChunkedArray, shares: Shares, seed: int) -> pa.Array:
    """Apply `assign_split` to every query; return strings, as many as `queries`, which holds no nulls."""
    return _by_text(queries, lambda query: assign_split(query, shares, seed))


def splits_of_bare(texts: pa.Array | pa.ChunkedArray, shares: Shares, seed: int) -> pa.Array:
    """Return what `assign_splits` does, for queries whose `bare` texts are known."""
    return _by_text(texts, lambda text: _split_at(_position(text, seed), shares))


def _by_text(texts: pa.Array | pa.ChunkedArray, name: Callable[[str], Split]) -> pa.Array:
    coded = pc.dictionary_encode(texts)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    names: list[Split] = [name(text.as_py()) for text in coded.dictionary]
    return pa.array(names, pa.string()).take(coded.indices)


def leaks(splits: np.ndarray | pa.Array, groups: np.ndarray) -> np.ndarray:
    """Return which samples must go, for a near-duplicate of theirs is held out further (test before val before train).

    Args:
        splits: the split of each sample.
        groups: its near-duplicate group (`near_duplicates.near_duplicate_groups`), int64.

    Returns:
        bool, one per sample.
    """
    rank = np.zeros(len(groups), dtype=np.int8)
    names = np.asarray(splits)
    for place, split in enumerate(_MOST_HELD_OUT_FIRST):
        rank[names == split] = place
    _, group = np.unique(groups, return_inverse=True)
    lowest = np.full(len(groups), len(_MOST_HELD_OUT_FIRST), dtype=np.int8)
    np.minimum.at(lowest, group, rank)
    return rank > lowest[group]


def _position(text: str, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text}".encode()).digest()[:8], "big") / 2**64


def _split_at(position: float, shares: Shares) -> Split:
    end = 0.0
    for split, share in shares:
        end += share
        if position < end:
            return split
    return shares[-1][0]
