"""Read CSV, tab- and semicolon-separated text with pyarrow, block by block, once encoding and headings are known."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from data_prep.readers.text_file import LOST, TextFile
from data_prep.rows.cells import EXPORT, Table
from data_prep.rows.headings import TOP_ROWS, Name, NoHeadings, SameMeaning, find_headings, known_names
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_BLOCK = 2 << 20  # bytes, of which pyarrow holds dozens; no row may be longer
_TOP_BYTES = 4 << 20  # the headings end within
_DELIMITERS = ",\t;"
_BLANK = r"^\s*$"


@dataclass(frozen=True)
class _Layout:
    """`offset`: bytes of UTF-8 before the first row below the headings; `above`: records there, headings counted."""

    delimiter: str
    offset: int
    above: int
    width: int
    places: dict[str, int]


def read_csv(
    path: Path, settings: SourceSettings, required: Sequence[str], notes: list[str] | None = None, table: Table = EXPORT
) -> Iterator[pa.RecordBatch]:
    """Yield the rows below the headings; `row` counts as a spreadsheet does: a record with line breaks in it is one
    row.

    A row with more or fewer cells than there are headings is refused, and so is one with bytes that are no text. Blank
    rows are no rows. Encodings: see `text_file`.

    Args:
        required: columns without which nothing can be done; the first is `original_query`.
        notes: takes a line for what looks wrong with the file as a whole.
        table: what is looked for, and what rows are made of it.

    Raises:
        BadInput: the file is missing, empty or no text; no row names what is required, or one names it twice; nothing
            is below the headings; a row is longer than 2 MiB. The blocks of 2 MiB before such a one come first.
    """
    file = TextFile(path)
    try:
        layout = _find_layout(file, known_names(settings.headings, table.aliases, table.columns), required)
    except (NoHeadings, SameMeaning) as problem:
        raise BadInput(f"{path}: {problem}") from None
    except csv.Error as problem:
        raise BadInput(f"{path}: not CSV ({problem})") from None
    if file.quotes % 2 and notes is not None:
        notes.append(f"{path}: a quote is opened and never closed: rows may have run together")
    numbering = _Numbering(layout.above + 1)
    rows = 0
    with file.open() as stream:
        stream.read(layout.offset)
        for block in _blocks(path, stream, layout, numbering):
            batch = _rows(path, table, block, layout, numbering, required[0], file.damaged)
            rows += batch.num_rows
            if batch.num_rows:
                yield batch
    if not rows:
        raise BadInput(f"{path}: no row below the headings")


def _find_layout(file: TextFile, names: Mapping[str, Name], required: Sequence[str]) -> _Layout:
    """Find delimiter and headings. Raises NoHeadings as the delimiter that gives the most columns has it, SameMeaning,
    csv.Error."""
    csv.field_size_limit(2**31 - 1)  # notes above the headings, recorded hits beside them: as long as they like
    problems: list[tuple[int, NoHeadings]] = []
    for delimiter in _DELIMITERS:
        records = _top(file, delimiter)
        texts = [(number, offset, cells) for number, offset, cells in records if any(map(str.strip, cells))]
        if not texts:
            raise NoHeadings("the file is empty")
        try:
            found = find_headings([cells for _, _, cells in texts], names, required)
        except NoHeadings as problem:
            problems.append((max(len(cells) for *_, cells in texts), problem))
            continue
        number, offset, cells = texts[found.index]
        return _Layout(delimiter, offset, number, len(cells), found.places)
    raise max(problems, key=lambda problem: problem[0])[1]


def _top(file: TextFile, delimiter: str) -> list[tuple[int, int, list[str]]]:
    """Return (number from 1, bytes of UTF-8 up to its end, cells) of the first records, until `TOP_ROWS` with text are
    among them."""
    read = filled = 0
    records: list[tuple[int, int, list[str]]] = []
    with file.open() as stream:

        def lines() -> Iterator[str]:
            nonlocal read
            while read < _TOP_BYTES and (line := stream.readline(_TOP_BYTES)):
                read += len(line)
                yield line.decode("utf-8", "replace")

        for number, cells in enumerate(csv.reader(lines(), delimiter=delimiter), start=1):
            records.append((number, read, cells))
            filled += any(map(str.strip, cells))
            if filled == TOP_ROWS:
                break
    return records


@dataclass
class _Numbering:
    """Gives the rows of a block their numbers, from `next` on: those that pyarrow set aside come in between."""

    next: int
    ragged: list[tuple[int, str]] = field(default_factory=list)  # number, why; in their order; not given out yet

    def take(self, count: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Return the numbers of `count` rows, and the ragged rows before the last of them; all that are left for no
        row."""
        between = 0 if count else len(self.ragged)
        while between < len(self.ragged) and self.ragged[between][0] < self.next + count + between:
            between += 1
        taken, self.ragged = self.ragged[:between], self.ragged[between:]
        numbers = np.arange(self.next, self.next + count + between)
        self.next += count + between
        return np.setdiff1d(numbers, [number for number, _ in taken], assume_unique=True), taken


def _blocks(path: Path, stream: BinaryIO, layout: _Layout, numbering: _Numbering) -> Iterator[pa.RecordBatch]:
    """Yield every cell as text, columns named by their position."""

    def keep(row: arrow_csv.InvalidRow) -> str:
        cells = "1 cell" if row.actual_columns == 1 else f"{row.actual_columns} cells"
        why = f"{cells} below {row.expected_columns} headings" if row.text.strip() else ""
        numbering.ragged.append((layout.above + row.number, why))
        return "skip"

    names = [str(place) for place in range(layout.width)]
    texts = arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    read = arrow_csv.ReadOptions(block_size=_BLOCK, use_threads=False, column_names=names)  # numbers need one thread
    parse = arrow_csv.ParseOptions(
        delimiter=layout.delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=keep
    )
    try:
        yield from arrow_csv.open_csv(stream, read, parse, texts)
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            why = f"a row after row {numbering.next - 1} is longer than {_BLOCK >> 20} MiB: is a quote never closed?"
            raise BadInput(f"{path}: {why}") from None
        if "Empty CSV" not in str(error):
            raise BadInput(f"{path}: not CSV ({str(error).splitlines()[0]})") from None
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from None
    yield pa.RecordBatch.from_pydict({name: pa.array([], pa.string()) for name in names})  # ragged ones may be left


def _rows(
    path: Path, table: Table, block: pa.RecordBatch, layout: _Layout, numbering: _Numbering, key: str, damaged: bool
) -> pa.RecordBatch:
    numbers, ragged = numbering.take(block.num_rows)
    present = _not_blank(block, layout.places[key])
    rows = pa.array(numbers, pa.int64()).filter(present)
    cells = {name: block.column(place).filter(present) for name, place in layout.places.items()}
    refused = _lost(cells) if damaged else [""] * len(rows)
    if ragged := [(number, why) for number, why in ragged if why]:
        order = pc.sort_indices(rows := pa.concat_arrays([rows, pa.array([n for n, _ in ragged], pa.int64())]))
        none = pa.repeat(pa.scalar("", pa.string()), len(ragged))
        rows = rows.take(order)
        cells = {name: pa.concat_arrays([column, none]).take(order) for name, column in cells.items()}
        reasons = refused + [why for _, why in ragged]
        refused = [reasons[place] for place in order.to_pylist()]
    return table.parse(cells, file=str(path), sheet="", rows=rows, source="test_set", refused=refused)


def _not_blank(block: pa.RecordBatch, key: int) -> pa.Array:
    blank = pc.match_substring_regex(block.column(key), _BLANK)
    if not pc.any(blank).as_py():
        return pc.invert(blank)
    for column in block.columns:
        blank = pc.and_(blank, pc.match_substring_regex(column, _BLANK))
    return pc.invert(blank)


def _lost(cells: dict[str, pa.Array]) -> list[str]:
    refused = [""] * len(next(iter(cells.values())))
    for name, column in cells.items():
        for place in pc.indices_nonzero(pc.match_substring(column, LOST)).to_pylist():
            refused[place] = refused[place] or f"{name}: bytes that are no text"
    return refused
