"""Which split a sample belongs to: a stable hash of its group, so that adding data moves no sample.

The unit interval is laid out test, val, train from 0. SFT takes 10 % test, 10 % val; RL takes 10 % val from the same
end, so RL validates on what SFT held out and never on what SFT learnt from.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import Literal

from reward.records import Context

Split = Literal["train", "val", "test"]
SFT_SHARES: tuple[tuple[Split, float], ...] = (("test", 0.1), ("val", 0.1), ("train", 0.8))
RL_SHARES: tuple[tuple[Split, float], ...] = (("val", 0.1), ("train", 0.9))


def group_key(original_query: str, context: Context) -> str:
    """The same for queries that differ only in case, width, spaces or punctuation, within the same context."""
    parts = [original_query, context.user_profile, context.history_summary, context.history_context]
    return json.dumps([_bare(part) for part in parts], ensure_ascii=False)


def assign_split(key: str, shares: tuple[tuple[Split, float], ...], seed: int) -> Split:
    """The split of the group `key`; `shares` are laid end to end over [0, 1) and sum to 1."""
    position = int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8], "big") / 2**64
    end = 0.0
    for split, share in shares:
        end += share
        if position < end:
            return split
    return shares[-1][0]


def _bare(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if unicodedata.category(c)[0] not in "PZC") or folded
