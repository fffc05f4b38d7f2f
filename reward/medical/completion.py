"""A policy's completion as chain and answer. Pure and total."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from plain_text.thinking import thinking_of, without_thinking


@dataclass(frozen=True, slots=True)
class Completion:
    """`chain` is what stands within the thinking tags, `answer` what the patient reads; either may be empty."""

    chain: str
    answer: str


@lru_cache(maxsize=2048)
def split(completion: str) -> Completion:
    """Split a completion: what a `<think>` that is never closed opens is all chain, and no answer."""
    return Completion(thinking_of(completion), without_thinking(completion).strip())
