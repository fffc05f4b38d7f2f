"""Read one workbook for `read_workbook` and write its cells to standard output.

`python -m data_prep.readers.sheet_process`

A process of its own, since a damaged or hostile workbook can end its reader in ways that nothing catches (the Rust
library aborts when memory runs out) and since an open workbook's memory is only given back with its process. It starts
in a tenth of a second: only what opening a workbook takes is imported.

In: one marshalled `Request` (a dict). Out: marshalled tuples, each after its length in bytes:
    ("rows", sheet, row numbers from 1, {column: PackedCells}, [(index, reason), …])
    ("done", why sheets were passed over, why the rest could not be read or "")
"""

from __future__ import annotations

import io
import marshal
import os
import resource
import sys
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time
from itertools import accumulate, chain, islice
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias, TypedDict
from xml.etree import ElementTree

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from data_prep.readers.sheet_xml import CellErrors, WorkbookXml
from data_prep.rows.headings import TOP_ROWS, Name, NoHeadings, SameMeaning, find_headings

_SIGNATURES = {b"PK": (".xlsx", ".xlsm"), b"\xd0\xcf": (".xls",)}
LENGTH_BYTES = 8  # before each message
_BATCH_BYTES = 8 << 20
_SMALLEST_BATCH, _LARGEST_BATCH = 256, 16_384  # rows
_DAYS_TO_1904 = 1462
_NEVER = "a formula that was never calculated: open and save the workbook in Excel or WPS"
_MARSHALLED = {str, float, int, bool}


class Request(TypedDict):
    """`names`: folded heading → (column, own). `unpacked`: bytes of the workbook's parts. Limits in bytes, seconds."""

    path: str
    names: dict[str, tuple[str, bool]]
    required: tuple[str, ...]
    unpacked: int
    memory: int
    seconds: int


# What a process can hand to another without an object for each cell: ("text", UTF-8 end to end, int32 offsets) or
# ("number", doubles); and for cells of several kinds ("any", list), dates and times as ISO 8601.
PackedCells: TypeAlias = tuple[Any, ...]
_Row = Sequence[Any]
_Numbered = Iterator[tuple[int, _Row]]  # row number from 0, its cells


def main() -> int:
    request: Request = marshal.load(sys.stdin.buffer)
    for limit, value, hard in (
        (resource.RLIMIT_AS, request["memory"], request["memory"]),
        (resource.RLIMIT_CPU, request["seconds"], request["seconds"] + 5),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with suppress(ValueError, OSError):  # a stricter limit is set already, or the system knows none
            resource.setrlimit(limit, (value, hard))
    passed_over: list[str] = []
    try:
        failure = _read(request, passed_over)
    except PasswordError:
        failure = "protected by a password: save it without one"
    except MemoryError:
        failure = "needs more memory than a workbook of its size does: damaged, or made to"
    except Exception as error:
        failure = f"not a readable workbook ({_line(error)})"
    except BaseException as error:  # a panic of the Rust library is no Exception
        failure = f"damaged ({_line(error)})"
    _write(("done", passed_over, failure))
    sys.stdout.buffer.flush()
    os._exit(0)  # at once: giving back the cells of a large sheet one by one takes a while


def _write(message: tuple[Any, ...]) -> None:
    try:
        data = marshal.dumps(message, 2)  # version 2: looks for no repeated objects
        sys.stdout.buffer.write(len(data).to_bytes(LENGTH_BYTES, "little") + data)
    except BrokenPipeError:  # nobody wants the rest
        os._exit(1)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(request: Request, passed_over: list[str]) -> str:
    """Write the rows of every sheet that names what is required; return why the rest could not be read, or ""."""
    path = Path(request["path"])
    names = {key: Name(*name) for key, name in request["names"].items()}
    # calamine reads the cells; only the XML tells errors and uncalculated formulas from empty cells.
    book = _open(path)
    xml: WorkbookXml | None = None
    with suppress(zipfile.BadZipFile, ElementTree.ParseError, KeyError, OSError, ValueError):
        xml = WorkbookXml(path)  # not for an .xls, nor for a file that only calamine makes sense of
    # Visible sheets come first: hidden ones count only where no visible one has the columns.
    failure, found = "", False
    sheets = [(i, sheet) for i, sheet in enumerate(book.sheets_metadata) if sheet.typ == SheetTypeEnum.WorkSheet]
    for index, metadata in sorted(sheets, key=lambda sheet: sheet[1].visible != SheetVisibleEnum.Visible):
        if found and metadata.visible != SheetVisibleEnum.Visible:
            passed_over.append(f"sheet {metadata.name}: hidden")
            continue
        errors: CellErrors = {}
        look = Thread(target=_find_errors, args=(xml, metadata.name, errors), daemon=True)
        look.start()  # beside calamine, which lets go of Python's lock
        try:
            sheet = book.get_sheet_by_index(index)
            rows = _filled(sheet)
            top = _top(rows)
            texts = [cells for _, cells in top if not _blank(cells)]
            if not texts:
                continue
            headings = find_headings(texts, names, request["required"])
        except NoHeadings as problem:
            passed_over.append(f"sheet {metadata.name}: {problem}")
            continue
        except SameMeaning as problem:
            return f"sheet {metadata.name}: {problem}"
        except CalamineError as problem:
            failure = failure or f"sheet {metadata.name}: not readable ({_line(problem)})"
            continue
        finally:
            look.join()
        # Send the rows below the headings in batches of a bounded size.
        found = True
        below = next(i for i, (_, cells) in enumerate(top) if cells is texts[headings.index]) + 1
        size = _BATCH_BYTES * sheet.height // max(1, request["unpacked"])
        reading = _Reading(
            metadata.name,
            headings.places,
            headings.places[request["required"][0]],
            sheet.start[1] if sheet.start else 0,
            errors,
            xml is not None and xml.date1904,
        )
        _write_rows(reading, chain(top[below:], rows), max(_SMALLEST_BATCH, min(size, _LARGEST_BATCH)))
        del sheet, rows  # two sheets are never held together
    return failure or ("" if found or passed_over else "no sheet holds any text")


def _open(path: Path) -> CalamineWorkbook:
    try:
        return CalamineWorkbook.from_path(path)
    except PasswordError:
        raise
    except CalamineError:
        with path.open("rb") as file:
            if path.suffix.lower() in _SIGNATURES[file.read(2)]:
                raise
    return CalamineWorkbook.from_filelike(io.BytesIO(path.read_bytes()))  # judges by content, not by a wrong name


def _find_errors(xml: WorkbookXml | None, sheet: str, errors: CellErrors) -> None:
    if xml is not None:
        with suppress(zipfile.BadZipFile, zlib.error, KeyError, OSError, NotImplementedError, EOFError, RuntimeError):
            errors.update(xml.cell_errors(sheet))  # where it cannot look, such cells read as empty


def _filled(sheet: CalamineSheet) -> _Numbered:
    """Yield every row of the sheet; a cell merged over several rows is in each of them that holds something else
    too."""
    left = sheet.start[1] if sheet.start else 0
    tall: dict[int, list[tuple[int, int]]] = {}
    for (top, column), (bottom, _) in sheet.merged_cell_ranges or ():
        if bottom > top and column >= left:
            tall.setdefault(top, []).append((bottom, column - left))
    standing: dict[int, tuple[int, Any]] = {}  # column → last row of its tall cell, what it holds
    for number, cells in enumerate(sheet.iter_rows()):
        if standing:
            standing = {column: cell for column, cell in standing.items() if cell[0] >= number}
            if not _blank(cells):
                for column, (_, value) in standing.items():
                    cells[column] = cells[column] if cells[column] != "" else value
        for bottom, column in tall.get(number, ()):
            if column < len(cells):
                standing[column] = (bottom, cells[column])
        yield number, cells


def _top(rows: _Numbered) -> list[tuple[int, _Row]]:
    """Return the first rows, from the first with text on, until `TOP_ROWS` with text are among them."""
    top: list[tuple[int, _Row]] = []
    filled = 0
    for number, cells in rows:
        filled += not _blank(cells)
        if filled:
            top.append((number, cells))
        if filled == TOP_ROWS:
            break
    return top


def _blank(cells: _Row) -> bool:
    return all(map(_empty, cells))


def _empty(cell: object) -> bool:
    return type(cell) is str and not cell.strip()


@dataclass(frozen=True)
class _Reading:
    """Of one sheet. `places`: column → position in a row; `key`: that of the first required one; `left`: the sheet's
    column that a row begins with, from 0."""

    sheet: str
    places: dict[str, int]
    key: int
    left: int
    errors: CellErrors
    date1904: bool


def _write_rows(reading: _Reading, rows: _Numbered, size: int) -> None:
    key, errors = reading.key, reading.errors
    while chunk := list(islice(rows, size)):
        kept = [
            (number, cells)
            for number, cells in chunk
            if not _empty(cells[key]) or number in errors or not _blank(cells)  # blank rows are no rows
        ]
        columns = {name: [cells[place] for _, cells in kept] for name, place in reading.places.items()}
        if reading.date1904 and "timestamp" in columns:  # day numbers without the format of a date
            columns["timestamp"] = [c + _DAYS_TO_1904 if type(c) is float else c for c in columns["timestamp"]]
        problems = [(i, reason) for i, (number, _) in enumerate(kept) if (reason := _error(reading, number))]
        packed = {name: _packed(cells) for name, cells in columns.items()}
        _write(("rows", reading.sheet, [number + 1 for number, _ in kept], packed, problems))


def _error(reading: _Reading, row: int) -> str:
    """Return why this row cannot be used: the first of its columns that holds an error; "" for none."""
    codes = {column - reading.left: code for column, code in reading.errors.get(row, ())}
    for name, place in reading.places.items():
        if place in codes:
            code = codes[place]
            return f"{name}: the cell holds the error {code}" if code else f"{name}: {_NEVER}"
    return ""


def _packed(cells: list[Any]) -> PackedCells:
    kinds = set(map(type, cells))
    if kinds == {str}:
        texts = [cell.encode() for cell in cells]
        return "text", b"".join(texts), array("i", accumulate(map(len, texts), initial=0)).tobytes()
    if kinds == {float}:
        return "number", array("d", cells).tobytes()
    if kinds <= _MARSHALLED:
        return "any", cells
    plain = [c if type(c) in _MARSHALLED else c.isoformat() if isinstance(c, date | time) else str(c) for c in cells]
    return "any", plain


if __name__ == "__main__":
    main()
