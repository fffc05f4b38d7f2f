"""Rows of the catalogue, as everything above it sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class RowKey(NamedTuple):
    """Name one thing that has a vector: a passage, or a question that leads to one."""

    row_id: int
    is_question: bool


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """`revision` counts its writes. `questions`: those that are indexed. `live_version`: None until one was built.
    `fusion`: the fitted weights of its channels, as `rag.retrieval.fitted_fusion` reads them, "" where none are."""

    id: int
    tenant_id: str
    name: str
    revision: int
    live_version: int | None
    documents: int
    passages: int
    questions: int
    created_at: str
    fusion: str = ""


@dataclass(frozen=True, slots=True)
class IndexRecipe:
    """What made a version's vectors. `mean_length`: mean number of BM25 tokens of a passage."""

    embedder_id: str
    dimension: int
    tokenizer_id: str
    engine_id: str
    mean_length: float


@dataclass(frozen=True, slots=True)
class Version:
    """One build of a knowledge base's vectors. It holds everything up to `applied_revision`, and nothing any more that
    was removed up to `cleaned_revision`; a crash leaves it as of `flushed_revision`, or later. `built_revision` is what
    it was built from, and what its statistics describe. `mean_vector`: the mean of its passages' vectors, float32; b""
    in one built before they were kept."""

    id: int
    kb_id: int
    state: Literal["building", "live", "retired"]
    recipe: IndexRecipe
    embedder_state: bytes
    statistics: bytes
    built_revision: int
    applied_revision: int
    points: int
    made_by: str
    created_at: str
    cleaned_revision: int
    flushed_revision: int
    mean_vector: bytes = b""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The distinct tokens of a text, ascending, and how often each occurs in it."""

    token_ids: NDArray[np.uint32]
    counts: NDArray[np.uint16]

    @property
    def total(self) -> int:
        return int(self.counts.sum(dtype=np.int64))


@dataclass(frozen=True, slots=True)
class IndexKey:
    row_id: int
    is_question: bool
    text: str
    revision: int
    tokens: TokenCounts


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """`token_ids`: its distinct tokens, ascending."""

    id: int
    key: str
    document: str
    content: str
    token_ids: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Question:
    """`score`: faithfulness to its passage in [0, 1], None for people's. `kept`: whether it is indexed."""

    id: int
    passage_id: int
    text: str
    source: Literal["human", "model"]
    score: float | None
    kept: bool


@dataclass(frozen=True, slots=True)
class DocumentRow:
    name: str
    passages: int
    content_hash: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Change:
    """How many documents a write added, replaced, found unchanged, deleted; the revision it left."""

    added: int
    replaced: int
    unchanged: int
    deleted: int
    revision: int
