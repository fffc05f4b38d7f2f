"""The one prompt of query expansion: training, evaluation and serving build it here."""

from __future__ import annotations

from guard.personal.normal_form import normalise_line

TEMPLATE = "/no_think Expand this search query: {query}"


def build_messages(query: str) -> list[dict[str, str]]:
    """Build the prompt of a query: one user message, no system message.

    The query is normalised as training data is: one line, half-width letters and digits, no control characters.
    """
    return [{"role": "user", "content": TEMPLATE.format(query=normalise_line(query))}]


def build_sft_messages(query: str, expansion: str) -> list[dict[str, str]]:
    """Build the prompt and, as the assistant's turn, the expansion to imitate (`Expansion.to_text`)."""
    return [*build_messages(query), {"role": "assistant", "content": expansion}]
