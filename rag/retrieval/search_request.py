"""What a retrieval is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rag.models.rewriter import Rewrite
from rag.retrieval.channels import ON, Channels
from rag.retrieval.fusion import ChannelRank

ExpansionKind = Literal["lex", "vec", "hyde"]
# Which channel searches with each kind of line.
CHANNEL_OF: dict[ExpansionKind, str] = {"lex": "keyword", "vec": "dense", "hyde": "dense"}


@dataclass(frozen=True, slots=True)
class Expansion:
    """One line that a model writes beside the query: `lex` keywords, `vec` a question in other words, `hyde` a passage
    that might answer it."""

    kind: ExpansionKind
    text: str


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """`rewritten_query`: None lets the tenant's rewriter write it. `keyword_query`: what the keyword channel searches
    with, None where it is the rewritten query. `context`: profile, summary and what was said."""

    query: str
    tenant_id: str
    top_k: int = 5
    score_threshold: float = 0.0
    rewritten_query: str | None = None
    keyword_query: str | None = None
    expansions: tuple[Expansion, ...] = ()
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
    """`channels`: each switch → "on", "off", "given" (rewrite, query2doc), "unavailable: why" or "fell back: why".
    `reranker`: id of what judged relevance. `fusion`: the weights by which the channels were fused, and where they come
    from. `seconds`: by stage."""

    hits: list[Hit]
    rewrite: Rewrite
    pseudo_document: str
    channels: dict[str, str]
    reranker: str
    fusion: str
    seconds: dict[str, float]


def searched_kinds(expansions: Sequence[Expansion], channels: Mapping[str, str]) -> dict[ExpansionKind, str]:
    """Return what became of each kind of line that was sent: "searched", or "not searched: why"."""
    searched = {}
    for kind in dict.fromkeys(line.kind for line in expansions):
        channel = CHANNEL_OF[kind]
        searched[kind] = "searched" if channels[channel] == ON else f"not searched: {channel} {channels[channel]}"
    return searched
