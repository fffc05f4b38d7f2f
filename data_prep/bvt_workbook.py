"""Writes BVT rows as a workbook a person can read and `read_sources` reads back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import xlsxwriter

from data_prep.bvt_row import COLUMNS, EXCEL_CELL_LIMIT, BvtRow
from reward.records import Hit, replacing

_WIDTHS = {"original_query": 40, "rewritten_query": 45, "recall_results": 50, "history_context": 40, "error": 30}
_WIDTH = 18


def write_workbook(path: Path, rows: Iterable[BvtRow]) -> None:
    """One sheet `bvt`: `COLUMNS` as frozen headings with a filter; appears whole or not at all.

    A text longer than an Excel cell holds (32 767 characters) is cut to it.
    """
    with replacing(path) as partial:
        book = xlsxwriter.Workbook(str(partial))
        sheet = book.add_worksheet("bvt")
        heading = book.add_format({"bold": True, "bg_color": "#E9EEF3", "bottom": 1})
        for column, name in enumerate(COLUMNS):
            sheet.write_string(0, column, name, heading)
            sheet.set_column(column, column, _WIDTHS.get(name, _WIDTH))
        last = 0
        for last, row in enumerate(rows, start=1):
            _write_row(sheet, last, row)
        sheet.freeze_panes(1, 0)
        sheet.autofilter(0, 0, last, len(COLUMNS) - 1)
        book.close()


def _write_row(sheet: xlsxwriter.worksheet.Worksheet, number: int, row: BvtRow) -> None:
    for column, name in enumerate(COLUMNS):
        value = getattr(row, name)
        if name == "recall_results":
            sheet.write_string(number, column, hits_cell(value))
        elif name == "slices":
            sheet.write_string(number, column, ",".join(value))
        elif isinstance(value, bool):
            sheet.write_boolean(number, column, value)
        elif isinstance(value, int | float):
            sheet.write_number(number, column, value)
        elif value:
            # write_string, not write: a query that begins with "=" is no formula.
            sheet.write_string(number, column, value[:EXCEL_CELL_LIMIT])


def hits_cell(hits: Sequence[Hit]) -> str:
    """JSON list of `hits`; passages are cut, each to the same length, when Excel's limit on a cell demands it."""
    length = max((len(hit.content) for hit in hits), default=0)
    while True:
        cut = [hit.model_dump() | {"content": hit.content[:length]} for hit in hits]
        text = json.dumps(cut, ensure_ascii=False)
        # One below the limit: a cell that reaches it is read as cut off by Excel.
        if len(text) < EXCEL_CELL_LIMIT or length == 0:
            return text
        length //= 2
