"""Texts of any origin where people read them: rows of a Markdown table, characters that cannot be seen. Pure."""

from __future__ import annotations

import re

# What changes the reading of a line or cannot be seen: shown by its code.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_LONGEST = 160  # characters of a shortened text


def table_row(*cells: str) -> str:
    """Return one row; no cell ends the row, opens a column or is taken for HTML or for a link."""
    escaped = (
        visible(" ".join(cell.split()))
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("[", "\\[")
        for cell in cells
    )
    return f"| {' | '.join(escaped)} |"


def table_head(*names: str) -> list[str]:
    """Return the row of headings and the line below it."""
    return [table_row(*names), f"| {' | '.join(['---'] * len(names))} |"]


def shorten(text: str, longest: int = _LONGEST) -> str:
    """Return the text on one line, cut to `longest` characters with an ellipsis."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def visible(text: str) -> str:
    """Show characters that cannot be seen, or turn a line round, by their codes; what is no character as U+FFFD."""
    shown = _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
    return shown.encode("utf-8", "replace").decode("utf-8")
