"""A query with its passages, and a row that cannot be used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """`score`: a teacher's, as a logit, where there is one."""

    doc_id: str
    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A query, at least one passage that answers it, and passages that do not. `source`: file and row."""

    query: str
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    source: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row, or a passage of a row, that is not used: `where` is `file: row N`, `field` what of it."""

    where: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.reason}"


def fold(text: str) -> str:
    """Write alike the texts that differ only in case and spaces."""
    return " ".join(text.lower().split())


def text_id(text: str) -> str:
    """Name a passage that came without a doc_id by its text."""
    return hashlib.sha256(fold(text).encode()).hexdigest()[:16]
