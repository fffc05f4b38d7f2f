"""Find the headings of a sheet, and which column each of them names.

Kept free of heavy imports: the process that opens a workbook (`sheet_process`) is started for every one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOP_ROWS = 20  # how many rows with text are looked at: exports carry titles and notes above the headings
_NOTE = re.compile(r"\(.*\)$", re.DOTALL)
_SHOWN = 12  # headings that a message repeats


@dataclass(frozen=True)
class Name:
    """What a heading means. `own`: the tenant's settings say so, which outweighs what is understood anyway."""

    column: str
    own: bool = False


@dataclass(frozen=True)
class Headings:
    """`index`: of the heading row among those looked at; `places`: column name → position in a row."""

    index: int
    places: dict[str, int]


class NoHeadings(Exception):
    """No row names what is required; says so in one line."""


class SameMeaning(Exception):
    """Two columns mean the same; says which in one line."""


def known_names(own: Mapping[str, str], aliases: Mapping[str, str], columns: Sequence[str]) -> dict[str, Name]:
    """Map `heading_key` → what the heading means: the tenant's `own` names first, then the aliases, then the
    columns themselves.

    Raises:
        NoHeadings: a heading of the tenant's settings names no column.
    """
    for heading, column in own.items():
        if column not in columns:
            raise NoHeadings(f"the tenant's sources.headings: {heading!r} names {column!r}, which is no column")
    names = {heading_key(column): Name(column) for column in columns}
    names |= {heading_key(heading): Name(column) for heading, column in aliases.items()}
    return names | {heading_key(heading): Name(column, own=True) for heading, column in own.items()}


def heading_key(heading: object) -> str:
    """Reduce a heading to what counts: half-width, lower case, without spaces, line breaks, BOM, `*`, `_`, `-` and
    `:`."""
    text = unicodedata.normalize("NFKC", heading if isinstance(heading, str) else "").casefold()
    return "".join(c for c in text if not c.isspace() and c not in "*_-:" and unicodedata.category(c) != "Cf")


def find_headings(rows: Sequence[Sequence[object]], names: Mapping[str, Name], required: Sequence[str]) -> Headings:
    """Return the first of `rows` that names every required column.

    A heading's note in brackets ("改写查询（必填）") is passed over where the whole means nothing.

    Args:
        names: `heading_key` → what it means.

    Raises:
        NoHeadings: no row names them all.
        SameMeaning: two columns of that row mean the same, and the tenant's own names do not decide between them.
    """
    best: tuple[int, list[str], Sequence[object]] = (-1, [], ())
    for index, row in enumerate(rows):
        found = [_meaning(cell, names) for cell in row]
        present = {name.column for name in found if name}
        if present.issuperset(required):
            return Headings(index, _places(row, found))
        if len(present) > best[0]:
            best = len(present), [name for name in required if name not in present], row
    _, missing, row = best
    texts = [" ".join(str(cell).split()) for cell in row if str(cell).strip()]
    shown = ", ".join(text[:30] for text in texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")
    raise NoHeadings(f"no column {', '.join(missing or required)} (columns: {shown or 'none'})")


def _meaning(cell: object, names: Mapping[str, Name]) -> Name | None:
    key = heading_key(cell)
    return names.get(key) or names.get(_NOTE.sub("", key)) if key else None


def _places(row: Sequence[object], found: Sequence[Name | None]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, name in enumerate(found):
        if name is None:
            continue
        earlier = places.setdefault(name.column, place)
        if earlier == place:
            continue
        first = found[earlier]
        if first is not None and first.own != name.own:
            places[name.column] = earlier if first.own else place
            continue
        both = " and ".join(repr(" ".join(str(row[i]).split())) for i in (earlier, place))
        raise SameMeaning(f"two columns mean {name.column}: {both}")
    return places
