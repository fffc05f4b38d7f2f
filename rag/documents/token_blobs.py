"""The tokens of a text as they are stored."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import NamedTuple

from rag.documents.tokenizer import token_id, tokenize

_MOST = (1 << 16) - 1


class TokenBlobs(NamedTuple):
    """`token_ids`: uint32 of the distinct tokens, ascending; `counts`: uint16, how often each occurs, 65535 at most;
    `total`: their sum."""

    token_ids: bytes
    counts: bytes
    total: int

    def is_sound(self) -> bool:
        """Return whether the ids ascend and there is a count for each."""
        if len(self.token_ids) % 4 or len(self.counts) * 2 != len(self.token_ids):
            return False
        ids, counts = array("I", self.token_ids), array("H", self.counts)
        return all(map(int.__lt__, ids, ids[1:])) and self.total == sum(counts)


def token_blobs(text: str) -> TokenBlobs:
    """Count the tokens of a text. Takes about 20 ms for 1,000 Chinese characters that no dictionary knows."""
    counted = Counter(map(token_id, tokenize(text)))
    ids = array("I", sorted(counted))
    counts = array("H", (min(counted[token], _MOST) for token in ids))
    return TokenBlobs(ids.tobytes(), counts.tobytes(), sum(counts))
