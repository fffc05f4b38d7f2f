"""Rows of a Markdown table, whatever their texts hold. Pure."""

from __future__ import annotations

_LONGEST = 160  # characters of a shortened text


def table_row(*cells: str) -> str:
    """Return one row; no cell ends the row, opens a column or is taken for HTML or for a link."""
    escaped = (
        " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
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
