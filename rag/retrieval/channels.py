"""The switches of retrieval, and what became of each in one request."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CHANNELS = ("dense", "keyword", "doc2query", "query2doc", "rerank", "rewrite")

# What a switch says when nobody turned it.
ON, OFF = "on", "off"
# The request brought what the switch would have made.
GIVEN = "given"


class Channels(BaseModel):
    """A switch is true (on), false (off) or absent: as the tenant has it, which is on where it is possible."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dense: bool | None = Field(None, description="nearest vectors of passages and questions")
    keyword: bool | None = Field(None, description="BM25 over words, characters and character pairs")
    doc2query: bool | None = Field(None, description="questions as further keys of their passage")
    query2doc: bool | None = Field(
        None, description="the query is expanded by a passage that a language model imagines"
    )
    rerank: bool | None = Field(None, description="a cross-encoder orders the fused hits")
    rewrite: bool | None = Field(None, description="a query without a rewrite is rewritten by the tenant's rewriter")

    def over(self, defaults: Channels) -> Channels:
        """Lay these switches over `defaults`, which hold where a switch is absent."""
        return Channels(
            **{name: getattr(defaults, name) if (own := getattr(self, name)) is None else own for name in CHANNELS}
        )

    def wants(self, name: str) -> bool:
        """Return whether a channel is on; an absent switch counts as on."""
        return getattr(self, name) is not False


def unavailable(why: str) -> str:
    return f"unavailable: {why}"


def fell_back(why: str) -> str:
    return f"fell back: {why}"
