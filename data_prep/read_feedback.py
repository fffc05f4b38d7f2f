"""Reads click logs into rows: JSON lines (plain, gzip, zstd), CSV and workbooks.

A click row is typed by the same parser as a row of any export (`cells.parse_columns`): each of its columns as the
column of the same kind there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

from data_prep.cells import parse_columns
from data_prep.columns import ALIASES
from data_prep.headings import TOP_ROWS, Name, NoHeadings, SameMeaning, find_headings, fold, known_names
from data_prep.log_lines import LONGEST_LINE, LogLines
from reward.records import BadInput

# Column of a click row → column of any export whose cells are read alike.
_READ_AS = {
    "original_query": "original_query",
    "passage": "thought_unit",
    "doc_id": "query_id",
    "clicked": "success",
    "position": "recall_count",
    "request_id": "model",
    "timestamp": "timestamp",
    "rewritten_query": "rewritten_query",
    "user_profile": "user_profile",
    "history_summary": "history_summary",
    "history_context": "history_context",
    "tenant_id": "tenant_id",
}
_KINDS = {"clicked": pa.bool_(), "position": pa.int64()}

# Texts are "" and others None where nothing was recorded; `row`, `refused` as in `columns.ROWS`.
CLICKS = pa.schema(
    [
        ("file", pa.string()),
        ("sheet", pa.string()),
        ("row", pa.int64()),
        ("refused", pa.string()),
        *((name, _KINDS.get(name, pa.string())) for name in _READ_AS),
    ]
)
_ALIASES = ALIASES | {
    "click": "clicked",
    "is_clicked": "clicked",
    "是否点击": "clicked",
    "点击": "clicked",
    "content": "passage",
    "text": "passage",
    "段落": "passage",
    "片段": "passage",
    "知识片段": "passage",
    "passage_id": "doc_id",
    "文档编号": "doc_id",
    "片段编号": "doc_id",
    "rank": "position",
    "位置": "position",
    "排名": "position",
    "trace_id": "request_id",
    "请求编号": "request_id",
}
REQUIRED = ("original_query", "clicked")
_NESTED = ("response", "payload", "data")  # where a line may hold fields too; the line's own count first
_BATCH = 10_000
_LONGEST_CELL = 1 << 24  # characters

# Sheet, row numbers, cells by column, and why a row cannot be used.
_Raw = tuple[str, list[int], Mapping[str, Sequence[object]], list[str]]


def read_clicks(path: Path, headings: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    """The click rows of one file, schema `CLICKS`; a row that cannot be used says why in `refused`.

    Raises:
        BadInput: the file cannot be read, holds no row, or has no query or no clicked (names it, one line).
    """
    suffix = path.suffix.lower()
    read = _read_workbook if suffix in (".xlsx", ".xlsm", ".xls") else _read_csv if suffix == ".csv" else _read_lines
    rows = 0
    for sheet, numbers, cells, refused in read(path, headings):
        rows += len(numbers)
        yield _click_rows(cells, path, sheet, numbers, refused)
    if not rows:
        raise BadInput(f"{path}: no row below the headings")


def _read_workbook(path: Path, headings: Mapping[str, str]) -> Iterator[_Raw]:
    """Every visible sheet that has the headings."""
    try:
        book = CalamineWorkbook.from_path(path)
        visible = [sheet.name for sheet in book.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible]
        problem = "no sheet to be seen"
        found = False
        for name in visible:
            records = enumerate(book.get_sheet_by_name(name).iter_rows(), start=1)
            try:
                for numbers, cells, refused in _below_headings(records, headings):
                    found = True
                    yield name, numbers, cells, refused
            except (NoHeadings, SameMeaning) as missing:
                problem = f"sheet {name}: {missing}"
    except CalamineError as error:
        raise BadInput(f"{path}: not a readable workbook, or one with a password ({error})") from None
    if not found:
        raise BadInput(f"{path}: {problem}")


def _read_csv(path: Path, headings: Mapping[str, str]) -> Iterator[_Raw]:
    """Comma-separated UTF-8 or GB18030."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding=_encoding(path), newline="") as text:
        try:
            for numbers, cells, refused in _below_headings(enumerate(csv.reader(text), start=1), headings):
                yield "", numbers, cells, refused
        except (NoHeadings, SameMeaning, csv.Error) as problem:
            raise BadInput(f"{path}: {problem}") from None


def _below_headings(
    records: Iterator[tuple[int, list[Any]]], headings: Mapping[str, str]
) -> Iterator[tuple[list[int], dict[str, list[object]], list[str]]]:
    """Row numbers, cells by column and reasons to refuse a row, in batches; blank rows are none."""
    filled = ((number, cells) for number, cells in records if any(str(cell).strip() for cell in cells))
    top = list(islice(filled, TOP_ROWS))
    found = find_headings([cells for _, cells in top], _names(headings), REQUIRED)
    width = len(top[found.index][1])
    below = chain(top[found.index + 1 :], filled)
    while rows := list(islice(below, _BATCH)):
        refused = ["" if len(cells) == width else f"{len(cells)} cells below {width} headings" for _, cells in rows]
        columns = {
            name: [cells[place] if place < len(cells) else "" for _, cells in rows]
            for name, place in found.places.items()
        }
        yield [number for number, _ in rows], columns, refused


def _names(headings: Mapping[str, str]) -> dict[str, Name]:
    """Of the tenant's own headings those that mean a column of a click row too."""
    own = {heading: column for heading, column in headings.items() if column in _READ_AS}
    aliases = {heading: column for heading, column in _ALIASES.items() if column in _READ_AS}
    return known_names(own, aliases, tuple(_READ_AS))


def _encoding(path: Path) -> str:
    """UTF-8 (with or without a BOM), GB18030 or, with a BOM, UTF-16.

    Raises:
        BadInput: none of them, or nothing can be read.
    """
    with path.open("rb") as start:
        mark = start.read(2)
    if not mark:
        raise BadInput(f"{path}: the file is empty")
    for encoding in ("utf-16",) if mark in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "gb18030"):
        try:
            with path.open(encoding=encoding, newline="") as text:
                while text.read(1 << 20):
                    pass
        except UnicodeError:
            continue
        return encoding
    raise BadInput(f"{path}: neither UTF-8 nor GB18030 text")


def _read_lines(path: Path, headings: Mapping[str, str]) -> Iterator[_Raw]:
    """JSON lines: fields by any of their names, at the top or within `_NESTED`."""
    names = _names(headings)
    known: dict[str, str | None] = {}

    def column(key: str) -> str | None:
        if key not in known:
            name = names.get(fold(key))
            known[key] = name.column if name else None
        return known[key]

    lines = LogLines(path)
    with closing(lines):
        for batch in lines:
            numbers: list[int] = []
            refused: list[str] = []
            cells: dict[str, list[object]] = {name: [] for name in _READ_AS}
            texts = batch.column("line").cast(pa.binary()).to_pylist()
            for number, text in zip(batch.column("row").to_pylist(), texts, strict=True):
                if not text.strip() and number not in lines.too_long:
                    continue
                found, problem = _fields(text, column)
                if number in lines.too_long:
                    problem = f"the line is longer than {LONGEST_LINE >> 20} MiB"
                for name, values in cells.items():
                    values.append(found.get(name))
                numbers.append(number)
                refused.append(problem)
            if numbers:
                yield "", numbers, cells, refused
    if lines.damage:
        yield "", [lines.last_row + 1], {}, [lines.damage]


def _fields(text: bytes, column: Callable[[str], str | None]) -> tuple[dict[str, object], str]:
    """The columns that a line holds something for and "", or why it cannot be read."""
    try:
        line = json.loads(text)
    except UnicodeDecodeError:
        return {}, "not UTF-8 text"
    except json.JSONDecodeError as error:
        return {}, f"not JSON ({error.msg}: column {error.colno})"
    except (ValueError, RecursionError):
        return {}, "not JSON (a number too long, or nested too deeply)"
    if not isinstance(line, dict):
        return {}, f"expected an object, found {type(line).__name__}"
    found: dict[str, object] = {}
    for part in (line, *(line.get(name) for name in _NESTED)):
        if isinstance(part, dict):
            for key, value in part.items():
                name = column(key)
                if name and value not in (None, ""):
                    found.setdefault(name, value)
    return found, ""


def _click_rows(
    cells: Mapping[str, Sequence[object]], file: Path, sheet: str, rows: Sequence[int], refused: Sequence[str]
) -> pa.RecordBatch:
    """Typed rows of `CLICKS`; a cell that cannot be understood, a query or a click that is not there, and a passage
    without text or id refuse their row."""
    read = parse_columns(
        {kind: cells[name] for name, kind in _READ_AS.items() if name in cells},
        file=str(file),
        sheet=sheet,
        rows=rows,
        source="production_log",
        refused=refused,
    )
    columns = {name: read.column(_READ_AS.get(name, name)) for name in CLICKS.names}
    for name, kind in _READ_AS.items():
        columns["refused"] = pc.replace_substring_regex(columns["refused"], f"^{kind}: ", f"{name}: ")
    nameless = pc.and_(pc.equal(columns["passage"], ""), pc.equal(columns["doc_id"], ""))
    for missing, reason in (
        (columns["clicked"].is_null(), "clicked: empty"),
        (nameless, "passage: no text, no doc_id"),
    ):
        first = pc.and_(missing, pc.equal(columns["refused"], ""))
        columns["refused"] = pc.if_else(first, reason, columns["refused"])
    return pa.RecordBatch.from_arrays([columns[name] for name in CLICKS.names], schema=CLICKS)
