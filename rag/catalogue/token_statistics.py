"""The tokens of a text, and how many passages of a knowledge base hold each token: what rarity is judged by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.records import TokenCounts
from rag.documents.token_blobs import token_blobs


def count_tokens(text: str) -> TokenCounts:
    blobs = token_blobs(text)
    return TokenCounts(np.frombuffer(blobs.token_ids, np.uint32), np.frombuffer(blobs.counts, np.uint16))


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """`token_ids`: ascending; `frequencies[i]`: passages that hold token i; `passages`: how many there are."""

    passages: int
    token_ids: NDArray[np.uint32]
    frequencies: NDArray[np.uint32]

    @classmethod
    def count(cls, token_ids: Iterable[NDArray[np.uint32]]) -> TokenStatistics:
        """Count from each passage's distinct tokens."""
        arrays = list(token_ids)
        flat = np.concatenate(arrays) if arrays else np.empty(0, np.uint32)
        tokens, frequencies = np.unique(flat, return_counts=True)
        return cls(len(arrays), tokens.astype(np.uint32), frequencies.astype(np.uint32))

    def to_bytes(self) -> bytes:
        return np.uint64(self.passages).tobytes() + self.token_ids.tobytes() + self.frequencies.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> TokenStatistics:
        counts = np.frombuffer(data, np.uint32, offset=8)
        half = len(counts) // 2
        return cls(int(np.frombuffer(data, np.uint64, 1)[0]), counts[:half], counts[half:])
