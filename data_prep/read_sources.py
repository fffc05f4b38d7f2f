"""Reads a BVT export (.xlsx, .xls, .csv, .jsonl) into rows that remember where they stood.

A row that cannot be used is quarantined with its reason and never ends the run: rows in = kept + quarantined.
Blank rows are no rows. Columns are found by name, in English or Chinese, wherever they stand.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from python_calamine import CalamineError

from data_prep.bvt_row import ALIASES, COLUMNS, BadRow, BvtRow, parse_row
from reward.records import BadInput, write_atomically

_HEADING_ROWS = 10  # how far down we look for the headings: exports carry title rows above them


@dataclass(frozen=True)
class Quarantined:
    file: str
    row: int
    reason: str


@dataclass(frozen=True)
class Source:
    rows: list[BvtRow]
    quarantined: list[Quarantined]

    @property
    def rows_in(self) -> int:
        return len(self.rows) + len(self.quarantined)


def read_rows(path: Path, required: Sequence[str]) -> Source:
    """The rows of `path`; their `number` is the 1-based row of the sheet, or line of the JSONL file.

    Args:
        required: columns (English names) without which nothing can be done.

    Raises:
        BadInput: the file is missing, unreadable, empty, of an unknown kind or lacks a required column.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty")
    reader = {".xlsx": _sheet, ".xls": _sheet, ".csv": _csv, ".jsonl": _jsonl}.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path}: expected .xlsx, .xls, .csv or .jsonl")
    rows, quarantined = [], []
    for number, values in reader(path, required):
        try:
            if isinstance(values, BadRow):
                raise values
            rows.append(parse_row(number, values))
        except BadRow as problem:
            quarantined.append(Quarantined(str(path), number, str(problem)))
    if not rows and not quarantined:
        raise BadInput(f"{path}: no row below the headings")
    return Source(rows, quarantined)


def write_quarantine(path: Path, quarantined: Sequence[Quarantined]) -> None:
    """One JSON object a line: file, row, reason."""
    write_atomically(path, (json.dumps(asdict(q), ensure_ascii=False) for q in quarantined))


_Numbered = Iterator[tuple[int, dict[str, Any] | BadRow]]


def _sheet(path: Path, required: Sequence[str]) -> _Numbered:
    try:
        frame = pd.read_excel(path, engine="calamine", header=None, dtype=object, na_filter=False)
    except CalamineError as error:
        raise BadInput(f"{path}: not a readable workbook, or one with a password ({error})") from None
    return _table(path, [list(cells) for cells in frame.itertuples(index=False, name=None)], required)


def _csv(path: Path, required: Sequence[str]) -> _Numbered:
    csv.field_size_limit(2**31 - 1)  # recall results outgrow the default of 128 KiB
    for encoding in ("utf-8-sig", "gb18030"):  # Excel on a Chinese Windows saves the latter
        try:
            with path.open(encoding=encoding, newline="") as text:
                return _table(path, list(csv.reader(text)), required)
        except UnicodeDecodeError:
            continue
        except csv.Error as error:
            raise BadInput(f"{path}: not CSV ({error})") from None
    raise BadInput(f"{path}: neither UTF-8 nor GB18030 text")


def _jsonl(path: Path, required: Sequence[str]) -> _Numbered:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8 text") from None
    found: list[tuple[int, dict[str, Any] | BadRow]] = []
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            found.append((number, BadRow(f"not JSON ({error})")))
            continue
        if not isinstance(value, dict):
            found.append((number, BadRow(f"expected an object, found {type(value).__name__}")))
            continue
        named = {_column(key): cell for key, cell in value.items()}
        if len(named) == len(value):
            names |= named.keys()
            found.append((number, named))
        else:
            found.append((number, BadRow(f"two fields of the same meaning among {', '.join(value)}")))
    if found:
        _check_columns(path, sorted(names), required)
    return iter(found)


def _table(path: Path, grid: list[list[Any]], required: Sequence[str]) -> _Numbered:
    """Headings are the first row (of the first ten) that names a required column, else the first row with text."""
    filled = [i for i, cells in enumerate(grid) if any(str(c).strip() for c in cells)]
    if not filled:
        raise BadInput(f"{path}: the file is empty")
    top = next((i for i in filled if i < _HEADING_ROWS and required[0] in map(_column, grid[i])), filled[0])
    columns = [_column(cell) for cell in grid[top]]
    _check_columns(path, columns, required)
    return _below(grid, top, columns)


def _below(grid: list[list[Any]], top: int, columns: list[str]) -> _Numbered:
    for number, cells in enumerate(grid[top + 1 :], start=top + 2):
        if not any(str(c).strip() for c in cells):
            continue
        if len(cells) > len(columns):
            yield number, BadRow(f"{len(cells)} cells below {len(columns)} headings")
        else:
            yield number, dict(zip(columns, cells, strict=False))


def _column(heading: object) -> str:
    name = str(heading).strip().lower()
    return ALIASES.get(name, name)


def _check_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in columns:
            present = ", ".join(c for c in columns if c) or "none"
            raise BadInput(f"{path}: no column {name} (columns: {present})")
    for name in COLUMNS:
        if columns.count(name) > 1:
            raise BadInput(f"{path}: two columns mean {name}")
