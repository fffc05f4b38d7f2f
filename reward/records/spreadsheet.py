"""Tables that people open in a spreadsheet: no cell of ours is taken for a formula."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# What Excel, WPS and LibreOffice take for the start of a formula, in half and full width (OWASP, "CSV injection").
_FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
# Excel reads a file that begins with it as UTF-8, and any other as the system's old encoding.
ENCODING = "utf-8-sig"


def is_like_formula(cell: object) -> bool:
    """Say whether a text would be taken for a formula. Numbers are none."""
    return isinstance(cell, str) and cell.lstrip(" \xa0\u3000\0").startswith(_FORMULA_STARTS)


class CsvTable:
    """Writes rows to `file`, opened with `newline=""`. A text that looks like a formula gets a `'` before it."""

    def __init__(self, file: TextIO, columns: Sequence[str]):
        self._writer = csv.writer(file)
        self.write(columns)

    def write(self, cells: Iterable[Any]) -> None:
        self._writer.writerow([f"'{cell}" if is_like_formula(cell) else cell for cell in cells])
