"""Read one workbook for `read_workbook` and write its cells to standard output.

`python -m data_prep.readers.sheet_process`

A process of its own, since a damaged or hostile workbook can end its reader in ways that nothing catches (the Rust
library aborts when memory runs out) and since an open workbook's memory is only given back with its process. It starts
in a tenth of a second: only what opening a workbook takes is imported.

It has none of our environment and, where the system allows it, no network. In: one `Request` as MessagePack. Out:
`Rows`, then `Done`, as MessagePack, each after its length in bytes.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree import ElementTree

import msgspec
from python_calamine import CalamineError, CalamineWorkbook, PasswordError

from data_prep.readers.calamine_book import CalamineBook
from data_prep.readers.sheet_xml import Cell, CellError, DamagedSheet, Row, WorkbookXml
from data_prep.rows.headings import (
    TOP_ROWS,
    Name,
    NoHeadings,
    OtherHeadings,
    Repeats,
    SameMeaning,
    find_headings,
)
from guard.sealed_process import seal

_SIGNATURES = {b"PK": (".xlsx", ".xlsm"), b"\xd0\xcf": (".xls",)}
LENGTH_BYTES = 8  # before each message
_BATCH_BYTES = 8 << 20
_FIRST_BATCH, _LARGEST_BATCH = 64, 16_384  # rows
# Bytes of text that rows may hold: a long text that many rows share is stored once.
_MOST_TEXT, _MOST_TEXT_PER_BYTE = 512 << 20, 3
_DAYS_TO_1904 = 1462
_NEVER = "a formula that was never calculated: open and save the workbook in Excel or WPS"
_TOO_LARGE = "needs more memory than a workbook of its size does: damaged, or made to"
DAMAGE = (
    DamagedSheet, zipfile.BadZipFile, zlib.error, ElementTree.ParseError, KeyError, EOFError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


class Request(msgspec.Struct):
    """`names`: folded heading → (column, own). `unpacked`: bytes of the workbook's parts. Limits in bytes, seconds."""

    path: str
    names: dict[str, tuple[str, bool]]
    required: tuple[str, ...]
    unpacked: int
    memory: int
    seconds: int


class Texts(msgspec.Struct, tag=True, array_like=True):
    """`data`: UTF-8 end to end; `offsets`: int32, one more than there are cells."""

    data: bytes
    offsets: bytes


class Numbers(msgspec.Struct, tag=True, array_like=True):
    """`data`: doubles."""

    data: bytes


class Mixed(msgspec.Struct, tag=True, array_like=True):
    """Cells of several kinds, dates and times as ISO 8601."""

    cells: list[str | float | bool | None]


PackedCells: TypeAlias = Texts | Numbers | Mixed


class Rows(msgspec.Struct, tag=True):
    """`numbers`: of the rows, from 1; `problems`: (index, why the row cannot be used)."""

    sheet: str
    numbers: list[int]
    columns: dict[str, PackedCells]
    problems: list[tuple[int, str]]


class Done(msgspec.Struct, tag=True):
    """`passed_over`: why sheets were; `failure`: why the rest could not be read, or ""; `sealed`: without network."""

    passed_over: list[str]
    failure: str
    sealed: bool


Message: TypeAlias = Rows | Done
_Numbered = Iterator[tuple[int, Row]]  # row number from 0, its cells


def main() -> int:
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Request)
    sealed = seal(request.memory, request.seconds)
    sys.setswitchinterval(0.0005)  # seconds: unpacking waits for Python's lock less
    gc.disable()  # nothing here refers to itself, and looking for what does takes a tenth of the time
    passed_over: list[str] = []
    try:
        failure = _read(request, passed_over)
    except PasswordError:
        failure = "protected by a password: save it without one"
    except MemoryError:
        failure = _TOO_LARGE
    except Exception as error:
        failure = f"not a readable workbook ({_line(error)})"
    except BaseException as error:  # a panic of the Rust library is no Exception
        failure = f"damaged ({_line(error)})"
    _write(Done(passed_over, failure, sealed))
    sys.stdout.buffer.flush()
    os._exit(0)  # at once: giving back the cells of a large sheet one by one takes a while


def _write(message: Message) -> None:
    try:
        data = msgspec.msgpack.encode(message)
        sys.stdout.buffer.write(len(data).to_bytes(LENGTH_BYTES, "little") + data)
    except BrokenPipeError:  # nobody wants the rest
        os._exit(1)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(request: Request, passed_over: list[str]) -> str:
    """Write the rows of every sheet that names what is required; return why the rest could not be read, or ""."""
    names = {key: Name(*name) for key, name in request.names.items()}
    book = _open(Path(request.path))
    room = _MOST_TEXT + _MOST_TEXT_PER_BYTE * request.unpacked
    # Visible sheets come first: hidden ones count only where no visible one has the columns.
    failure, found = "", False
    for index, sheet in sorted(enumerate(book.sheets), key=lambda numbered: numbered[1].hidden):
        if found and sheet.hidden:
            passed_over.append(f"sheet {sheet.name}: hidden")
            continue
        try:
            rows = _filled(book.rows(index), book.merged(index))
            top = _top(rows)
            texts = [cells for _, cells in top if not _is_blank(cells)]
            if not texts:
                continue
            headings = find_headings(list(map(_shown, texts)), names, request.required)
            below = next(i for i, (_, cells) in enumerate(top) if cells is texts[headings.index]) + 1
            repeats = Repeats(names, headings.places, request.required, list(map(_shown, texts))[headings.index])
            key = headings.places[request.required[0]]
            reading = _Reading(sheet.name, headings.places, key, repeats, book.date1904, room)
            found = True
            reading.write(chain(top[below:], rows))
            room = reading.room
            if reading.repeated:
                passed_over.append(f"sheet {sheet.name}: {reading.repeated} more headings in the middle: no rows")
        except NoHeadings as problem:
            passed_over.append(f"sheet {sheet.name}: {problem}")
        except SameMeaning as problem:
            return f"sheet {sheet.name}: {problem}"
        except OtherHeadings as problem:
            failure = failure or f"sheet {sheet.name}: {problem}"
        except (CalamineError, *DAMAGE) as problem:
            failure = failure or f"sheet {sheet.name}: not readable ({_line(problem)})"
    return failure or ("" if found or passed_over else "no sheet holds any text")


def _open(path: Path) -> WorkbookXml | CalamineBook:
    """Open an .xlsx by its XML, and with calamine an .xls and what only calamine makes sense of."""
    with suppress(OSError, ValueError, *DAMAGE):
        return WorkbookXml(path)
    try:
        return CalamineBook(CalamineWorkbook.from_path(path))
    except PasswordError:
        raise
    except CalamineError:
        with path.open("rb") as file:
            if path.suffix.lower() in _SIGNATURES[file.read(2)]:
                raise
    return CalamineBook(CalamineWorkbook.from_filelike(io.BytesIO(path.read_bytes())))  # judges by content, not by name


def _filled(rows: _Numbered, merged: dict[int, list[tuple[int, int]]]) -> _Numbered:
    """Yield every row; a cell merged over several rows is in each of them that holds something else too."""
    standing: dict[int, tuple[int, Cell]] = {}  # column → last row of its tall cell, what it holds
    for number, cells in rows:
        if standing:
            standing = {column: cell for column, cell in standing.items() if cell[0] >= number}
            if not _is_blank(cells):
                for column, (_, value) in standing.items():
                    if cells.get(column, b"") == b"":
                        cells[column] = value
        if merged:
            for bottom, column in merged.get(number, ()):
                if column in cells:
                    standing[column] = (bottom, cells[column])
        yield number, cells


def _top(rows: _Numbered) -> list[tuple[int, Row]]:
    """Return the first rows, from the first with text on, until `TOP_ROWS` with text are among them."""
    top: list[tuple[int, Row]] = []
    filled = 0
    for number, cells in rows:
        filled += not _is_blank(cells)
        if filled:
            top.append((number, cells))
        if filled == TOP_ROWS:
            break
    return top


def _is_blank(cells: Row) -> bool:
    return all(type(cell) is bytes and not cell.decode().strip() for cell in cells.values())


def _shown(cells: Row) -> list[Any]:
    """Return the cells of a row in their places, texts as str."""
    shown: list[Any] = [""] * (1 + max(cells, default=-1))
    for place, cell in cells.items():
        shown[place] = cell.decode() if isinstance(cell, bytes) else cell.code if isinstance(cell, CellError) else cell
    return shown


@dataclass
class _Reading:
    """Writes the rows of one sheet.

    Args:
        places: column → position in a row.
        key: position of the first required column.
        room: bytes of text that may still be written.
        repeated: headings in the middle, so far.
    """

    sheet: str
    places: dict[str, int]
    key: int
    repeats: Repeats
    date1904: bool
    room: int
    repeated: int = 0
    _stopped: Exception | None = field(default=None, init=False)

    def write(self, rows: _Numbered) -> None:
        """Write `rows` in batches of a bounded size.

        Raises:
            OtherHeadings, DAMAGE: headings of another table, or a sheet that cannot be read on; the rows above are
                written.
            MemoryError: the rows hold more text than a sound workbook's.
        """
        wanted = self._below(rows)
        size = _FIRST_BATCH
        while batch := list(islice(wanted, size)):
            columns = {name: [cells.get(place) for _, cells in batch] for name, place in self.places.items()}
            if self.date1904 and "timestamp" in columns:  # day numbers without the format of a date
                columns["timestamp"] = [c + _DAYS_TO_1904 if type(c) is float else c for c in columns["timestamp"]]
            kinds = {name: set(map(type, cells)) for name, cells in columns.items()}
            problems: list[tuple[int, str]] = []
            if any(CellError in kind for kind in kinds.values()):
                problems = [(i, reason) for i, (_, cells) in enumerate(batch) if (reason := self._error(cells))]
            packed = {name: _packed(cells, kinds[name]) for name, cells in columns.items()}
            length = sum(len(cells.data) for cells in packed.values() if isinstance(cells, Texts))
            self.room -= length
            if self.room < 0:
                raise MemoryError
            _write(Rows(self.sheet, [number + 1 for number, _ in batch], packed, problems))
            size = max(1, min(4 * len(batch), _LARGEST_BATCH, _BATCH_BYTES * len(batch) // max(1, length)))
        if self._stopped:
            raise self._stopped

    def _below(self, rows: _Numbered) -> _Numbered:
        """Yield the rows that are neither blank nor headings again, up to where the sheet cannot be read."""
        key, may_be_one = self.key, self.repeats.may_be_one
        try:
            for number, cells in rows:
                cell = cells.get(key, b"")
                text = cell.decode() if type(cell) is bytes else " "
                if may_be_one(text) and self._is_heading(number, cells):
                    self.repeated += 1
                elif (cell and not text.isspace()) or not _is_blank(cells):
                    yield number, cells
        except (OtherHeadings, *DAMAGE) as problem:
            self._stopped = problem

    def _is_heading(self, number: int, cells: Row) -> bool:
        try:
            return self.repeats.is_one(_shown(cells))
        except OtherHeadings as problem:
            raise OtherHeadings(f"row {number + 1}: {problem}") from None

    def _error(self, cells: Row) -> str:
        """Return why this row cannot be used: the first of its columns that holds an error; "" for none."""
        for name, place in self.places.items():
            if type(error := cells.get(place)) is CellError:
                return f"{name}: the cell holds the error {error.code}" if error.code else f"{name}: {_NEVER}"
        return ""


def _packed(cells: Sequence[Any], kinds: set[type]) -> PackedCells:
    if kinds <= {bytes, type(None)}:
        texts = [cell or b"" for cell in cells] if type(None) in kinds else cells
        return Texts(b"".join(texts), array("i", accumulate(map(len, texts), initial=0)).tobytes())
    if kinds == {float}:
        return Numbers(array("d", cells).tobytes())
    if kinds <= {float, bool, type(None)}:
        return Mixed(list(cells))
    return Mixed([c.decode() if type(c) is bytes else None if type(c) is CellError else c for c in cells])


if __name__ == "__main__":
    main()
