"""What a vector engine does for the index. Two do it: Qdrant Edge in this process, and a Qdrant server.

A space is one version of one knowledge base's vectors; no other version's are in it. Scores are comparable within one
channel of one search only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.records import IndexKey

T = TypeVar("T")

DENSE, SPARSE = "text_sem", "text_kw"
SPACE, KIND, PASSAGE, QUESTION = "space", "kind", "text", "syn"
QUESTION_BIT, VERSION_SHIFT = 43, 44
# Up to so many points the dense channel compares all of them (1.4 ms for 10 000): the nearest-neighbour graph used
# beyond is approximate, and comes out differently on every build.
EXACT_UP_TO = 10_000


class SpaceLost(Exception):
    """The vectors of a space are missing or damaged: to be built again from the catalogue. One line."""


class EngineUnavailable(Exception):
    """The engine cannot be asked just now: a server does not answer. One line."""


def point_id(version_id: int, row_id: int, is_question: bool) -> int:
    """Return the 64-bit id of a point, unlike that of any other version."""
    return version_id << VERSION_SHIFT | is_question << QUESTION_BIT | row_id


def row_of(point: int) -> tuple[int, bool]:
    """Return the row id and whether it is a question's."""
    return point & ((1 << QUESTION_BIT) - 1), bool(point >> QUESTION_BIT & 1)


def pages_of_tokens(keys: Iterable[IndexKey], size: int, tokens: int) -> Iterator[list[IndexKey]]:
    """Yield the keys, up to `size` at a time, and no more than one beyond so many distinct tokens."""
    page: list[IndexKey] = []
    held = 0
    for key in keys:
        page.append(key)
        held += len(key.tokens.token_ids)
        if len(page) == size or held >= tokens:
            yield page
            page, held = [], 0
    if page:
        yield page


def pages_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items, up to `size` at a time."""
    remaining = iter(items)
    while page := list(islice(remaining, size)):
        yield page


@dataclass(frozen=True, slots=True)
class Space:
    version_id: int
    dimension: int


@dataclass(frozen=True, slots=True)
class Point:
    """`dense`: (dimension,) unit vector; of length 0 where the space has no dense channel. `token_ids`, `weights`: BM25
    term weights without IDF, the engine's part."""

    row_id: int
    is_question: bool
    dense: NDArray[np.float32]
    token_ids: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True, slots=True)
class ScoredRow:
    row_id: int
    is_question: bool
    score: float


class Engine(Protocol):
    """Raises SpaceLost where it names a space that is not there, EngineUnavailable where a server does not answer."""

    @property
    def id(self) -> str:
        """Its kind and the version of its format: an index is only searched by the engine that made it."""
        ...

    @property
    def kind(self) -> str:
        """What every `id` of this engine, of any version, begins with."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes may be searching the same spaces."""
        ...

    def write(self, space: Space, points: Iterable[Point]) -> Iterator[int]:
        """Create the space and fill it, durable at the end; yield how many points are written.

        Blocks other threads for long with Edge: for commands, never for the serving process."""
        ...

    def upsert(self, space: Space, points: Sequence[Point]) -> None: ...

    def delete(self, space: Space, rows: Sequence[tuple[int, bool]]) -> None: ...

    def flush(self, space: Space) -> None:
        """Make everything written so far survive a crash. Edge keeps every thread waiting meanwhile, as long as the
        disk takes."""
        ...

    async def search(
        self,
        space: Space,
        dense: NDArray[np.float32] | None,
        keywords: tuple[Sequence[int], Sequence[float]] | None,
        limit: int,
        with_questions: bool,
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        """Return (dense channel, keyword channel): the `limit` best rows of each, best first, equal scores by row id;
        empty for a channel that is None. IDF counts the space's own points only: passages, and questions when asked
        for. (Edge goes on counting those deleted since the space was written.)"""
        ...

    def count(self, space: Space) -> int:
        """Count the points in the space."""
        ...

    def exists(self, space: Space) -> bool: ...

    def drop(self, space: Space) -> bool:
        """Forget the space, if there is one. False: another process may have it open, nothing was done."""
        ...

    def close(self) -> None: ...
