"""Runs of combining marks without end, which Unicode's normal forms sort in quadratic time."""

from __future__ import annotations

import re
import unicodedata

BLANKS = " \t\r\n\u00a0\u3000\ufeff\u200b\u200e\u200f\u2060"  # around a number or a name they say nothing
MOST_MARKS = 30  # on one character: Unicode's stream-safe text format (UAX #15, section 13)
# Marks are neither letters nor digits nor blanks: most texts hold no such run, and cost one look.
_RUN = re.compile(rf"[^\w\s]{{{MOST_MARKS + 1},}}")


def bound_marks(text: str) -> str:
    """Cut every run of combining marks to `MOST_MARKS`; any other text stays as it is. Linear in the text's length."""
    return text if text.isascii() else _RUN.sub(_cut, text)


def _cut(run: re.Match[str]) -> str:
    kept, marks = [], 0
    for character in run[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)
