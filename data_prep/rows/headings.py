"""Find the headings of a sheet, and which column each of them names.

Kept free of heavy imports: the process that opens a workbook (`sheet_process`) starts for every one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opencc import OpenCC

from data_prep.rows.envelopes import ANSWERED, ENVELOPES, VAGUE
from reward.text.fold import fold

TOP_ROWS = 20  # how many rows with text are looked at: exports carry titles and notes above the headings
SAY = "; the tenant setting sources.headings can say what a column means"
FILL = "; python -m data_prep.fill_baseline asks the deployed rewriter for what is missing"
_POWER_QUERY = re.compile(r"column\d+")
_NOTE = re.compile(r"(?:\(.*\)|【.*】|\[.*\])$", re.DOTALL)
_SHOWN = 12  # headings that a message repeats
_TO_TRADITIONAL = OpenCC("s2t")
_SEPARATORS = str.maketrans("", "", "*_-:\"'")


@dataclass(frozen=True)
class Name:
    """What a heading means. `own`: the tenant's settings say so, which outweighs what is understood anyway. `within`:
    the objects that a flattened log had around it, which any other heading outweighs."""

    column: str
    own: bool = False
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headings:
    """`index`: of the heading row among those looked at; `places`: column name → position in a row."""

    index: int
    places: dict[str, int]


class NoHeadings(Exception):
    """No row names what is required; says so in one line."""


class SameMeaning(Exception):
    """Two columns mean the same; says which in one line."""


class OtherHeadings(Exception):
    """A table of other columns begins in the middle of this one; says so in one line."""


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
    """Reduce a heading to what counts: half-width, Simplified, lower case, without spaces, line breaks, BOM, quotes,
    `*`, `_`, `-` and `:`."""
    return "".join(fold(heading).translate(_SEPARATORS).split()) if isinstance(heading, str) else ""


def find_headings(rows: Sequence[Sequence[object]], names: Mapping[str, Name], required: Sequence[str]) -> Headings:
    """Return the row that names every required column and the most columns; of several, the first.

    A row that names fewer is a title or the headings of groups ("问题" above "编号" and "原始问题"), but only while no
    row of data is below it. A heading's note in brackets ("改写查询（必填）") is passed over where the whole means
    nothing.

    Args:
        names: `heading_key` → what it means.

    Raises:
        NoHeadings: no row names them all.
        SameMeaning: two columns of that row mean the same, and the tenant's own names do not decide between them.
    """
    best = nearest = 0
    counts = []
    chosen: int | None = None
    for index, row in enumerate(rows):
        present = _columns(row, names)
        counts.append(len(present))
        if counts[index] > counts[nearest]:
            nearest = index
        if not present.issuperset(required) or counts[index] <= best:
            continue
        # A row that names one column may be a title; below one that names several, rows that name nothing are data.
        if chosen is None or best == 1 or all(counts[chosen + 1 : index]):
            best, chosen = counts[index], index
    if chosen is not None:
        return Headings(chosen, _places(rows[chosen], [_meaning(cell, names) for cell in rows[chosen]]))
    row = rows[nearest] if rows else ()
    found = _columns(row, names)
    missing = [name for name in required if name not in found]
    texts = [" ".join(str(cell).split()) for cell in row if str(cell).strip()]
    shown = ", ".join(text[:30] for text in texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")
    way_out = FILL if "original_query" in found and {"rewritten_query", "success"} & {*missing} else ""
    raise NoHeadings(f"no column {', '.join(missing or required)} (columns: {shown or 'none'}){SAY}{way_out}")


class Repeats:
    """Tell headings in the middle of a table, as joined exports have them, from rows.

    Args:
        names: `heading_key` → what it means.
        places: column → position in a row, as the headings above name them.
        required: columns that every heading row names.
        row: the headings above. Of a single column they repeat in the same words only: others are a row.
    """

    def __init__(
        self,
        names: Mapping[str, Name],
        places: Mapping[str, int],
        required: Sequence[str],
        row: Sequence[object] = (),
    ) -> None:
        self._names, self._places, self._required = names, places, required
        self._only = {place: heading_key(row[place]) for place in places.values()} if len(places) == 1 and row else {}
        # Nearly every row is told by one look at one cell; the pattern holds in RE2 too.
        between = "[\\s*_:\"'\\-\ufeff\u200b]*"
        above = {heading_key(row[place]): None for place in places.values() if place < len(row)}
        keys = sorted({spelling for key in (*names, *above) for spelling in (key, _TO_TRADITIONAL.convert(key)) if key})
        self.pattern = f"(?i)^{between}(?:{'|'.join(between.join(map(re.escape, key)) for key in keys)})"
        self.may_be_one = re.compile(self.pattern).match

    def is_one(self, cells: Sequence[object]) -> bool:
        """Whether `cells`, a whole row, repeat the headings.

        Raises:
            OtherHeadings: they are headings, but of other columns or in another order.
        """
        if any(place >= len(cells) or heading_key(cells[place]) != key for place, key in self._only.items()):
            return False
        meanings = [_meaning(cell, self._names) for cell in cells]
        found = {name.column for name in meanings if name}
        here = dict(enumerate(meanings))
        if all((name := here.get(place)) and name.column == column for column, place in self._places.items()):
            return True
        texts = sum(isinstance(cell, str) and bool(cell.strip()) for cell in cells)
        if len(found) > 1 and 2 * len(found) >= texts and all(column in found for column in self._required):
            raise OtherHeadings("headings again, of other columns than above: keep the two tables in two files")
        return False


def _columns(row: Sequence[object], names: Mapping[str, Name]) -> set[str]:
    return {name.column for cell in row if (name := _meaning(cell, names))}


def _meaning(cell: object, names: Mapping[str, Name]) -> Name | None:
    key = heading_key(cell)
    if not key:
        return None
    found = names.get(key) or names.get(_NOTE.sub("", key))
    return found if found or "." not in key else _flattened(key, names)


def _flattened(key: str, names: Mapping[str, Name]) -> Name | None:
    """Understand `payload.query` and `_source.response.rewritten_query`, as Kibana and pandas flatten a log."""
    *within, last = key.split(".")
    within = within[1:] if len(within) > 1 and _POWER_QUERY.fullmatch(within[0]) else within
    found = names.get(last)
    if found is None or last in VAGUE or not ENVELOPES.issuperset(within):
        return None
    if found.column == "original_query" and not ANSWERED.isdisjoint(within):
        return None  # what answers is no question
    return Name(found.column, within=tuple(within))


def _preferred(one: Name, other: Name) -> bool | None:
    """Return whether `one` outweighs `other` of the same meaning; None where neither does."""
    if one.own != other.own:
        return one.own
    if bool(one.within) != bool(other.within):
        return not one.within
    answers = not ANSWERED.isdisjoint(one.within)
    return None if answers != ANSWERED.isdisjoint(other.within) else answers


def _places(row: Sequence[object], found: Sequence[Name | None]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, name in enumerate(found):
        if name is None:
            continue
        earlier = places.setdefault(name.column, place)
        if earlier == place:
            continue
        first = found[earlier]
        is_first = None if first is None else _preferred(first, name)
        if is_first is not None:
            places[name.column] = earlier if is_first else place
            continue
        both = " and ".join(repr(" ".join(str(row[i]).split())) for i in (earlier, place))
        raise SameMeaning(f"two columns mean {name.column}: {both}")
    return places
