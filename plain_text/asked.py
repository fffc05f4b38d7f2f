"""What a reranker reads as the query, in training and in serving."""

from __future__ import annotations

# Query and context together, in characters: with a passage of 300 it fits the 512 tokens that most rerankers read.
_LONGEST = 200


def asked_text(query: str, context: str) -> str:
    """Return the context's end, then the query: models cut a long text at its end, and the query must not be what is
    lost."""
    room = _LONGEST - len(query)
    return f"{context[-room:]}\n{query}" if context and room > 0 else query
