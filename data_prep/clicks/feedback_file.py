"""Read click logs into rows: JSON lines (plain, gzip, zstd), CSV and workbooks.

A click row is typed by the same parser as a row of any export (`cells.parse_columns`): each of its columns as the
column of the same kind there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.readers.csv_file import read_csv
from data_prep.readers.log_lines import LONGEST_LINE, LogLines
from data_prep.readers.log_paths import is_envelope, same_key
from data_prep.readers.workbook import read_workbook
from data_prep.rows.cells import Cells, Table, parse_columns
from data_prep.rows.columns import ALIASES
from data_prep.rows.dialogue import parse_json, unpacked
from data_prep.rows.headings import Name, heading_key, known_names
from data_prep.rows.missing import is_missing, spelled
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

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

# Texts are "" and others None where nothing was recorded; `row`, `refused`, `remarks` as in `columns.ROWS`.
CLICKS = pa.schema(
    [
        ("file", pa.string()),
        ("sheet", pa.string()),
        ("row", pa.int64()),
        ("refused", pa.string()),
        *((name, _KINDS.get(name, pa.string())) for name in _READ_AS),
        ("remarks", pa.list_(pa.string())),
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


def read_clicks(path: Path, headings: Mapping[str, str], notes: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the click rows of one file, schema `CLICKS`; a row that cannot be used says why in `refused`.

    Args:
        headings: the tenant's own (`SourceSettings.headings`); those of columns that a click row lacks are passed over.
        notes: takes a line for what a user should know of the file, such as which encoding was taken.

    Raises:
        BadInput: the file cannot be read, holds no row, or no headings name the query and the click (one line).
    """
    settings = SourceSettings(headings={h: column for h, column in headings.items() if column in _READ_AS})
    suffix = path.suffix.lower()
    if suffix in (".xlsx", ".xlsm", ".xls"):
        yield from read_workbook(path, settings, REQUIRED, notes, _TABLE)
    elif suffix in (".csv", ".tsv"):
        yield from read_csv(path, settings, REQUIRED, notes, _TABLE)
    else:
        yield from _read_lines(path, known_names(settings.headings, _TABLE.aliases, _TABLE.columns), notes)


def _read_lines(path: Path, names: Mapping[str, Name], notes: list[str] | None) -> Iterator[pa.RecordBatch]:
    """Read JSON lines: fields by any of their names, at the top or in envelopes; the line's own count first."""
    known: dict[str, str | None] = {}

    def column(key: str) -> str | None:
        if key not in known:
            name = names.get(heading_key(key))
            known[key] = name.column if name else None
        return known[key]

    # Columns of raw cells, as the typed reader takes them; a line that cannot be read is a refused row.
    lines, rows = LogLines(path), 0
    with closing(lines):
        for first, texts in lines:
            numbers: list[int] = []
            refused: list[str] = []
            cells: dict[str, list[object]] = {name: [] for name in _READ_AS}
            for number, text in enumerate(texts, start=first):
                if not text.strip() and number not in lines.too_long:
                    continue
                found, problem = _fields(text, column)
                if number in lines.too_long:
                    problem = f"the line is longer than {LONGEST_LINE >> 20} MiB"
                for name, values in cells.items():
                    values.append(found.get(name))
                numbers.append(number)
                refused.append(problem)
            rows += len(numbers)
            if numbers:
                yield parse_clicks(cells, file=str(path), rows=numbers, refused=refused)
    if notes is not None:
        notes += [f"{path}: {said}" for said in lines.notes]
    if lines.damage:
        yield parse_clicks({}, file=str(path), rows=[lines.last_row + 1], refused=[lines.damage])
    elif not rows:
        raise BadInput(f"{path}: every line is blank")


def _fields(text: bytes, column: Callable[[str], str | None]) -> tuple[dict[str, object], str]:
    """Return the columns that a line fills and "", or none and why the line cannot be read."""
    try:
        line = parse_json(text.decode().strip("\ufeff\0 \t\r\n"))
        line = unpacked(line) if isinstance(line, str) else line
    except UnicodeDecodeError:
        return {}, "bytes that are no text"
    except json.JSONDecodeError as error:
        return {}, f"not JSON ({error.msg}: column {error.colno})"
    except (ValueError, RecursionError):
        return {}, "not JSON (a number too long, or nested too deeply)"
    if not isinstance(line, dict):
        return {}, f"expected an object, found {type(line).__name__}"
    found: dict[str, object] = {}
    missing: dict[str, object] = {}
    for part in _envelopes(line):
        for key, value in part.items():
            name = column(key)
            if name and not is_missing(value):
                found.setdefault(name, value)
            elif name and spelled(value):
                missing.setdefault(name, value)
    return {**missing, **found}, ""


def _envelopes(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the line and the objects in its envelopes (`log_paths`), packed ones too, outer ones first."""
    waiting: list[tuple[tuple[str | int, ...], dict[str, Any]]] = [((), line)]
    for steps, part in waiting:
        yield part
        for key, value in part.items():
            inner, within = (*steps, same_key(key)), unpacked(value) if isinstance(value, str) else value
            if isinstance(within, list) and len(within) == 1:
                inner, within = (*inner, 0), within[0]
            if isinstance(within, dict) and is_envelope(inner):
                waiting.append((inner, within))


def parse_clicks(
    cells: Mapping[str, Cells],
    *,
    file: str,
    rows: Sequence[int] | pa.Array,
    sheet: str = "",
    source: str = "production_log",
    refused: Sequence[str] | None = None,
) -> pa.RecordBatch:
    """Type the rows of `CLICKS` as `cells.parse_columns` does. A row is also refused when its query or click is
    missing, or its passage has neither text nor id."""
    raw = {kind: cells[name] for name, kind in _READ_AS.items() if name in cells}
    read = parse_columns(raw, file=file, sheet=sheet, rows=rows, source=source, refused=refused)
    columns = {name: read.column(_READ_AS.get(name, name)) for name in CLICKS.names}
    columns["remarks"] = _under_own_names(columns["remarks"])
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


def _under_own_names(remarks: pa.Array) -> pa.Array:
    """Return remarks with the column of a click row in place of that whose cells are read alike."""
    if not len(pc.list_flatten(remarks)):
        return remarks
    names = {kind: name for name, kind in _READ_AS.items()}
    split = ((text.partition(": ") for text in texts or ()) for texts in remarks.to_pylist())
    told = [[f"{names.get(kind, kind)}: {what}" for kind, _, what in texts] for texts in split]
    return pa.array(told, remarks.type)


_TABLE = Table({h: column for h, column in _ALIASES.items() if column in _READ_AS}, tuple(_READ_AS), parse_clicks)
