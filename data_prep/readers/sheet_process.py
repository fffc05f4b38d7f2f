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
from data_prep.readers.sheet_blocks import Block, CellError, Row, RowBlock, filled, is_blank, shown
from data_prep.readers.sheet_xml import DamagedSheet, WorkbookXml
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
            blocks = filled(book.blocks(index), book.merged(index))
            top = _top(blocks)
            texts = list(islice((cells for _, cells in top if not is_blank(cells)), TOP_ROWS))
            if not texts:
                continue
            headings = find_headings(list(map(shown, texts)), names, request.required)
            below = next(i for i, (_, cells) in enumerate(top) if cells is texts[headings.index]) + 1
            repeats = Repeats(names, headings.places, request.required, list(map(shown, texts))[headings.index])
            key = headings.places[request.required[0]]
            reading = _Reading(sheet.name, headings.places, key, repeats, book.date1904, room)
            found = True
            reading.write(chain([RowBlock(top[below:])], blocks))
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


def _top(blocks: Iterator[Block]) -> list[tuple[int, Row]]:
    """Return the rows of the first blocks, from the first with text on, that hold `TOP_ROWS` with text between them."""
    top: list[tuple[int, Row]] = []
    filled = 0
    for block in blocks:
        for number, cells in block.rows():
            filled += not is_blank(cells)
            if filled:
                top.append((number, cells))
        if filled >= TOP_ROWS:
            break
    return top


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

    def write(self, blocks: Iterator[Block]) -> None:
        """Write the rows of `blocks` in batches of a bounded size.

        Raises:
            OtherHeadings, DAMAGE: headings of another table, or a sheet that cannot be read on; the rows above are
                written.
            MemoryError: the rows hold more text than a sound workbook's.
        """
        size = _FIRST_BATCH
        for block in self._sound(blocks):
            kept = self._below(block)
            columns = {name: block.column(place) for name, place in self.places.items()}
            if self.date1904 and "timestamp" in columns:  # day numbers without the format of a date
                columns["timestamp"] = [c + _DAYS_TO_1904 if type(c) is float else c for c in columns["timestamp"]]
            numbers = block.numbers
            if len(kept) < len(numbers):
                numbers = [numbers[index] for index in kept]
                columns = {name: [cells[index] for index in kept] for name, cells in columns.items()}
            first = 0
            while first < len(numbers):
                batch = slice(first, first + size)
                length = self._write(numbers[batch], {name: cells[batch] for name, cells in columns.items()})
                written = len(numbers[batch])
                first += written
                size = max(1, min(4 * written, _LARGEST_BATCH, _BATCH_BYTES * written // max(1, length)))
            if self._stopped:
                raise self._stopped

    def _write(self, numbers: list[int], columns: dict[str, list[Any]]) -> int:
        """Write one batch; return the bytes of its texts."""
        kinds = {name: set(map(type, cells)) for name, cells in columns.items()}
        problems: dict[int, str] = {}
        for name, cells in columns.items():
            for index, cell in enumerate(cells) if CellError in kinds[name] else ():
                if type(cell) is CellError:
                    said = f"the cell holds the error {cell.code}" if cell.code else _NEVER
                    problems.setdefault(index, f"{name}: {said}")
        packed = {name: _packed(cells, kinds[name]) for name, cells in columns.items()}
        length = sum(len(cells.data) for cells in packed.values() if isinstance(cells, Texts))
        self.room -= length
        if self.room < 0:
            raise MemoryError
        _write(Rows(self.sheet, [number + 1 for number in numbers], packed, sorted(problems.items())))
        return length

    def _sound(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield `blocks` up to where the sheet cannot be read; the last of them, then, without a row."""
        try:
            yield from blocks
        except DAMAGE as problem:
            self._stopped = problem
            yield RowBlock([])

    def _below(self, block: Block) -> list[int]:
        """Return which rows are neither blank nor headings again, up to headings of another table."""
        may_be_one = self.repeats.may_be_one
        kept: list[int] = []
        for index, cell in enumerate(block.column(self.key)):
            text = cell.decode() if type(cell) is bytes else "" if cell is None else " "
            try:
                if may_be_one(text) and self._is_heading(block.numbers[index], block.row(index)):
                    self.repeated += 1
                    continue
            except OtherHeadings as problem:
                self._stopped = problem
                return kept
            if (cell and not text.isspace()) or not is_blank(block.row(index)):
                kept.append(index)
        return kept

    def _is_heading(self, number: int, cells: Row) -> bool:
        try:
            return self.repeats.is_one(shown(cells))
        except OtherHeadings as problem:
            raise OtherHeadings(f"row {number + 1}: {problem}") from None


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
