"""Write BVT rows as a workbook that people read in Excel and WPS, and that `data_prep.readers.sources` reads back."""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_col_to_name
from xlsxwriter.worksheet import Worksheet

from data_prep.bvt.row import COLUMNS, BvtRow
from reward.records.files import replacing
from reward.records.sample import Hit
from reward.records.spreadsheet import is_like_formula

CELL_LIMIT = 32_767  # UTF-16 units
MOST_ROWS = 1_048_575  # of a sheet, below its headings
_WIDTHS = {
    "original_query": 36,
    "user_profile": 24,
    "history_summary": 24,
    "rewritten_query": 40,
    "recall_results": 60,
    "recall_count": 14,
    "top1_score": 13,
    "avg_top3_score": 17,
    "success": 11,
    "query_id": 14,
    "history_context": 36,
    "slices": 14,
    "error": 30,
}
# Excel and WPS fit a row to its wrapped cells, and disagree on how: we say how high it is. JSON would fill a screen.
_WRAPPED = ("original_query", "user_profile", "history_summary", "rewritten_query", "history_context", "error")
_SCORES = ("top1_score", "avg_top3_score")
_LINE_POINTS, _MOST_LINES = 15, 8
_NO_CHARACTER = re.compile("[\ufffe\uffff]")  # XML 1.0 has no way to write them


@dataclass(frozen=True)
class Sheet:
    """A plain table of texts.

    Args:
        columns: heading → width in characters.
        choices: heading → what its cells may hold.
    """

    columns: Mapping[str, int]
    rows: Sequence[Sequence[str]]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_workbook(path: Path, rows: Iterable[BvtRow]) -> None:
    """Write one sheet `bvt` with `COLUMNS` as frozen headings and a filter; the file appears whole or not at all.

    A text longer than an Excel cell holds (`CELL_LIMIT`) is cut to it. Control characters become the escapes
    (`_x0007_`) of the file format, which its readers turn back.

    Args:
        rows: `MOST_ROWS` at most.

    Raises:
        BadInput: the file cannot be written.
    """
    with replacing(path) as partial:
        book = xlsxwriter.Workbook(str(partial))
        sheet = book.add_worksheet("bvt")
        heading = book.add_format({"bold": True, "bg_color": "#E9EEF3", "bottom": 1, "valign": "vcenter"})
        formats = {
            (name, quoted): book.add_format(_format(name, quoted)) for name in COLUMNS for quoted in (False, True)
        }
        for column, name in enumerate(COLUMNS):
            sheet.write_string(0, column, name, heading)
            sheet.set_column(column, column, _WIDTHS[name], formats[name, False])
        last = 0
        for last, row in enumerate(rows, start=1):
            _write_row(sheet, last, row, formats)
        sheet.freeze_panes(1, 1)
        sheet.ignore_errors({"number_stored_as_text": f"A2:{xl_col_to_name(len(COLUMNS) - 1)}{last + 1}"})  # ids
        sheet.autofilter(0, 0, last, len(COLUMNS) - 1)
        book.close()


def _format(name: str, quoted: bool) -> dict[str, Any]:
    """Return the look of a cell. `quoted`: it stays a text when somebody edits it or saves the sheet as CSV."""
    return (
        {"valign": "top", "quote_prefix": quoted}
        | ({"text_wrap": True} if name in _WRAPPED else {})
        | ({"num_format": "0.0000"} if name in _SCORES else {})
    )


def _write_row(sheet: Worksheet, number: int, row: BvtRow, formats: dict[tuple[str, bool], Format]) -> None:
    values = {name: _cell(name, getattr(row, name)) for name in COLUMNS}
    lines = max(_lines(str(values[name]), _WIDTHS[name]) for name in _WRAPPED)
    sheet.set_row(number, _LINE_POINTS * min(lines, _MOST_LINES))
    for column, (name, value) in enumerate(values.items()):
        look = formats[name, is_like_formula(value)]
        # By kind, not `write`: a query that begins with "=" is no formula, an id of digits no number.
        if isinstance(value, bool):
            sheet.write_boolean(number, column, value, look)
        elif isinstance(value, int | float):
            sheet.write_number(number, column, value, look)
        elif value and value.startswith("<r>") and value.endswith("</r>"):
            # XlsxWriter 3.3 takes such a text for markup of its own and writes it as it is; not so in three pieces.
            sheet.write_rich_string(number, column, value[:1], value[1:2], value[2:], look)
        elif value:
            sheet.write_string(number, column, value, look)


def _cell(name: str, value: Any) -> str | bool | int | float | None:
    if name == "recall_results":
        return None if value is None else hits_cell(value)
    if name == "slices":
        return ",".join(value)
    return _fitting(_NO_CHARACTER.sub("\ufffd", value)) if isinstance(value, str) else value


def _lines(text: str, width: int) -> int:
    """Count the lines that `text` takes in a cell `width` Latin characters wide; a Chinese character takes two
    places."""
    return sum(
        max(1, ceil(sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) / width))
        for line in text[: width * _MOST_LINES].split("\n")
    )


def hits_cell(hits: Sequence[Hit]) -> str:
    """Write `hits` as a JSON list. Where Excel's limit on a cell demands it, first the passages are cut, each to the
    same length, then the last hits are left out."""
    length = max((len(hit.content) for hit in hits), default=0)
    while True:
        cut = [hit.model_dump() | {"content": hit.content[:length]} for hit in hits]
        texts = [_NO_CHARACTER.sub("\ufffd", json.dumps(hit, ensure_ascii=False)) for hit in cut]
        # Brackets count too. One below the limit: a cell that reaches it is read as cut off by Excel.
        ends = list(accumulate(_units(text) + len(", ") for text in texts))
        fitting = bisect_left(ends, CELL_LIMIT)
        if fitting == len(texts) or not length:
            return f"[{', '.join(texts[:fitting])}]"
        length //= 2


def _units(text: str) -> int:
    """Count UTF-16 units, as Excel does: an emoji is two."""
    return len(text) + sum(character > "\uffff" for character in text)


def _fitting(text: str) -> str:
    if 2 * len(text) <= CELL_LIMIT or _units(text) <= CELL_LIMIT:
        return text
    return text.encode("utf-16-le")[: 2 * CELL_LIMIT].decode("utf-16-le", errors="ignore")


def write_sheets(path: Path, sheets: Mapping[str, Sheet]) -> None:
    """Write a workbook of plain tables, each with frozen headings; the file appears whole or not at all.

    Texts are written as texts and cut to an Excel cell; a column with `choices` offers them in a list.

    Raises:
        BadInput: the file cannot be written.
    """
    with replacing(path) as partial:
        book = xlsxwriter.Workbook(str(partial))
        heading = book.add_format({"bold": True, "bg_color": "#E9EEF3", "bottom": 1, "valign": "vcenter"})
        plain = {"valign": "top", "text_wrap": True}
        looks = {quoted: book.add_format(plain | {"quote_prefix": quoted}) for quoted in (False, True)}
        for name, content in sheets.items():
            sheet = book.add_worksheet(name)
            for column, (title, width) in enumerate(content.columns.items()):
                sheet.write_string(0, column, title, heading)
                sheet.set_column(column, column, width)
                if offered := content.choices.get(title):
                    last = max(1, len(content.rows))
                    sheet.data_validation(1, column, last, column, {"validate": "list", "source": list(offered)})
            for number, row in enumerate(content.rows, start=1):
                for column, value in enumerate(row):
                    text = _fitting(_NO_CHARACTER.sub("\ufffd", value))
                    if text:
                        sheet.write_string(number, column, text, looks[is_like_formula(text)])
            sheet.freeze_panes(1, 1)
        book.close()
