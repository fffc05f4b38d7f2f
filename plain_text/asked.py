"""What a reranker reads as the query, in training and in serving."""

from __future__ import annotations

import re

# Query and context together, in characters: with a passage of 300 it fits the 512 tokens that most rerankers read.
_LONGEST = 200
_SPEAKER_LABEL = re.compile(r"^(?:用户|助手)[:：]\s*", re.MULTILINE)


def context_text(user_profile: str, history_summary: str, history: str) -> str:
    """Return profile, summary and what was said in the history (without the speakers' labels), a line each or more."""
    said = _SPEAKER_LABEL.sub("", history)
    return "\n".join(part for part in (user_profile, history_summary, said) if part)


def asked_text(query: str, context: str) -> str:
    """Return the context's end, then the query: models cut a long text at its end, and the query must not be what is
    lost."""
    room = _LONGEST - len(query)
    return f"{context[-room:]}\n{query}" if context and room > 0 else query
