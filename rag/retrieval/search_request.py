"""What a retrieval is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag.models.rewriter import Rewrite
from rag.retrieval.channels import Channels
from rag.retrieval.fusion import ChannelRank


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """`rewritten_query`: None lets the tenant's rewriter write it. `context`: profile, summary and what was said."""

    query: str
    tenant_id: str
    top_k: int = 5
    score_threshold: float = 0.0
    rewritten_query: str | None = None
    history: str = ""
    user_profile: str = ""
    history_summary: str = ""
    context: str = ""
    channels: Channels = field(default_factory=Channels)
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """`score` in (0, 1], `reranker_score` in [0, 1]. `matched_question`: the question that found it (debug only)."""

    doc_id: str
    document: str
    content: str
    score: float
    reranker_score: float
    channels: dict[str, ChannelRank]
    matched_question: str | None = None


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`channels`: each switch → "on", "off", "given" (rewrite), "unavailable: why" or "fell back: why". `reranker`: id
    of what judged relevance. `fusion`: the weights by which the channels were fused, and where they come from.
    `seconds`: by stage."""

    hits: list[Hit]
    rewrite: Rewrite
    pseudo_document: str
    channels: dict[str, str]
    reranker: str
    fusion: str
    seconds: dict[str, float]
