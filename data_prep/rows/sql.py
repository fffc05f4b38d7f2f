"""What DuckDB's SQL needs of Python's texts."""

from __future__ import annotations


def literal(text: str) -> str:
    """Write `text` as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
