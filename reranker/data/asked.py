"""What a reranker reads as the query: the service's own form, so that training and serving agree."""

from __future__ import annotations

LONGEST = 200  # characters of context and query together


def asked_text(query: str, context: str) -> str:
    """Return the context's end, then the query, as `rag.models.cross_encoder` puts them (a test compares the two)."""
    room = LONGEST - len(query)
    return f"{context[-room:]}\n{query}" if context and room > 0 else query
