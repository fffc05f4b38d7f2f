"""Requests and answers of knowledge-base management."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase

# What a tenant or knowledge base that is created may be called.
NAME_PATTERN = r"^\w[\w.-]{0,63}$"


class KnowledgeBaseRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "faq"}]})

    name: str = Field(pattern=NAME_PATTERN, description="letters, digits, _ . -, at most 64")


class KnowledgeBaseInfo(BaseModel):
    tenant_id: str
    name: str
    revision: int = Field(description="counts its writes")
    documents: int
    passages: int
    questions: int = Field(description="further keys of passages")
    created_at: str

    @classmethod
    def of(cls, kb: KnowledgeBase) -> KnowledgeBaseInfo:
        return cls(
            tenant_id=kb.tenant_id,
            name=kb.name,
            revision=kb.revision,
            documents=kb.documents,
            passages=kb.passages,
            questions=kb.questions,
            created_at=kb.created_at,
        )


class VersionInfo(BaseModel):
    """The build that is searched, and what made it."""

    id: int
    embedder_id: str
    embedder_dimension: int
    tokenizer_id: str
    engine_id: str
    built_revision: int
    applied_revision: int
    points: int = Field(description="when it was built")
    versions: dict[str, str] = Field(description="of Python and the libraries that built it")
    created_at: str

    @classmethod
    def of(cls, catalogue: Catalogue, kb: KnowledgeBase) -> VersionInfo | None:
        """Describe a version; None: nothing was built yet, or it was dropped meanwhile."""
        if kb.live_version is None:
            return None
        try:
            version = catalogue.version(kb.live_version)
        except KeyError:
            return None
        return cls(
            id=version.id,
            embedder_id=version.recipe.embedder_id,
            embedder_dimension=version.recipe.dimension,
            tokenizer_id=version.recipe.tokenizer_id,
            engine_id=version.recipe.engine_id,
            built_revision=version.built_revision,
            applied_revision=version.applied_revision,
            points=version.points,
            versions=json.loads(version.made_by),
            created_at=version.created_at,
        )


class KnowledgeBaseDetail(KnowledgeBaseInfo):
    state: Literal["empty", "live", "rebuilding"]
    rebuild_failure: str = Field(description='why the last rebuild failed; "" when it did not')
    version: VersionInfo | None


class DocumentInfo(BaseModel):
    name: str
    passages: int
    content_hash: str
    updated_at: str


class DocumentPage(BaseModel):
    """`next`: what `after` gets for the following page; null on the last."""

    documents: list[DocumentInfo]
    next: str | None


class PassageInfo(BaseModel):
    doc_id: str
    content: str


class DocumentDetail(BaseModel):
    name: str
    passages: list[PassageInfo]


class DocumentChange(BaseModel):
    """How many documents the file added, replaced and found unchanged: a .jsonl holds one a row."""

    name: str
    state: Literal["added", "replaced", "unchanged"]
    added: int
    replaced: int
    unchanged: int
    revision: int


class RebuildStarted(BaseModel):
    state: Literal["rebuilding"] = "rebuilding"
    started: bool = Field(description="false: one was under way already")
