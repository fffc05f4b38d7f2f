"""Read CSV, tab- and semicolon-separated text with pyarrow, block by block, once encoding and headings are known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from data_prep.readers.csv_quotes import UNCLOSED, Quoting, find_quoting
from data_prep.rows.cells import EXPORT, Table
from data_prep.rows.headings import (
    TOP_ROWS,
    Name,
    NoHeadings,
    OtherHeadings,
    Repeats,
    SameMeaning,
    find_headings,
    known_names,
)
from data_prep.rows.ids import ROUNDED, cut_to_fifteen
from data_prep.rows.recall_cells import count_cut_off
from plain_text.encodings import LOST
from plain_text.text_file import TextFile
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_BLOCK = 2 << 20  # bytes, of which pyarrow holds dozens; no row may be longer
_TOP_BYTES = 4 << 20  # the headings end within
_DELIMITERS = ",\t;"
_BLANK = r"^\s*$"
_AS_TEXT = r'^\s*="(?s:(.*))"\s*$'  # what Excel needs to leave a long number alone
_IDS = {"query_id", "doc_id", "request_id", "tenant_id"}
_NEVER_CLOSED = "a quote is opened and never closed"


@dataclass(frozen=True)
class _Layout:
    """`offset`: bytes of UTF-8 before the first row below the headings; `above`: records there, headings counted;
    `needed`: cells up to the last required one."""

    quoting: Quoting
    delimiter: str
    offset: int
    above: int
    width: int
    places: dict[str, int]
    needed: int
    repeats: Repeats


def read_csv(
    path: Path, settings: SourceSettings, required: Sequence[str], notes: list[str] | None = None, table: Table = EXPORT
) -> Iterator[pa.RecordBatch]:
    """Yield the rows below the headings; `row` counts as a spreadsheet does: a record with line breaks in it is one
    row.

    A row with more cells than there are headings is refused unless the others are blank; one with fewer, unless it has
    all the required ones and is not the rest of a row that was refused. So is a row with bytes that are no text, and
    one that opens a quote and never closes it. Blank rows are no rows, nor are headings in the middle, which joined
    exports have. `="17"` is 17. Encodings: see `plain_text.text_file`; quotes: see `csv_quotes`.

    Args:
        required: columns without which nothing can be done; the first is `original_query`.
        notes: takes a line for what looks wrong with the file as a whole.
        table: what is looked for, and what rows are made of it.

    Raises:
        BadInput: the file is missing, empty or no text; no row names what is required, or one names it twice; nothing
            is below the headings; a row is longer than 2 MiB, or headings of other columns are in the middle. The rows
            before such a one come first, by blocks of 2 MiB.
    """
    file = TextFile(path, BadInput)
    try:
        layout = _find_layout(file, known_names(settings.headings, table.aliases, table.columns), required)
    except (NoHeadings, SameMeaning) as problem:
        raise BadInput(f"{path}: {problem}") from None
    except csv.Error as problem:
        raise BadInput(f"{path}: not CSV ({problem})") from None
    if file.note and notes is not None:
        notes.append(file.note)
    numbering = _Numbering(layout.above + 1)
    rows = cut_off = 0
    with layout.quoting.open(file, layout.delimiter) as stream:
        stream.read(layout.offset)
        for block in _blocks(path, stream, layout, numbering):
            batch, cut = _rows(path, table, block, layout, numbering, required[0], file.damaged)
            rows += batch.num_rows
            cut_off += cut
            if batch.num_rows:
                yield batch
            if numbering.stopped:
                raise BadInput(f"{path}: row {numbering.stopped[0]}: {numbering.stopped[1]}")
    if numbering.repeated and notes is not None:
        notes.append(f"{path}: {numbering.repeated} more headings in the middle: no rows")
    if cut_off and notes is not None:
        notes.append(f"{path}: recall_results of {cut_off} rows cut off at Excel's limit: read without hits")
    if not rows:
        raise BadInput(f"{path}: no row below the headings")


def _find_layout(file: TextFile, names: Mapping[str, Name], required: Sequence[str]) -> _Layout:
    """Find delimiter and headings. Raises NoHeadings as the delimiter that gives the most columns has it, SameMeaning,
    csv.Error."""
    csv.field_size_limit(2**31 - 1)  # notes above the headings, recorded hits beside them: as long as they like
    problems: list[tuple[int, NoHeadings]] = []
    for delimiter in _DELIMITERS:
        quoting = find_quoting(file, delimiter)
        records = _top(file, quoting, delimiter)
        texts = [(number, offset, cells) for number, offset, cells in records if any(map(str.strip, cells))]
        if not texts:
            raise NoHeadings("the file is empty")
        try:
            found = find_headings([cells for _, _, cells in texts], names, required)
        except NoHeadings as problem:
            problems.append((max(len(cells) for *_, cells in texts), problem))
            continue
        number, offset, cells = texts[found.index]
        needed = 1 + max(found.places[name] for name in required)
        repeats = Repeats(names, found.places, required, cells)
        return _Layout(quoting, delimiter, offset, number, len(cells), found.places, needed, repeats)
    raise max(problems, key=lambda problem: problem[0])[1]


def _top(file: TextFile, quoting: Quoting, delimiter: str) -> list[tuple[int, int, list[str]]]:
    """Return (number from 1, bytes of UTF-8 up to its end, cells) of the first records, until `TOP_ROWS` with text are
    among them."""
    read = filled = 0
    records: list[tuple[int, int, list[str]]] = []
    with quoting.open(file, delimiter) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="")

        def lines() -> Iterator[str]:
            nonlocal read
            while read < _TOP_BYTES and (line := text.readline(_TOP_BYTES)):
                read += len(line.encode())
                yield line

        for number, cells in enumerate(csv.reader(lines(), delimiter=delimiter), start=1):
            records.append((number, read, [cell.replace(UNCLOSED, '"') for cell in cells]))
            filled += any(map(str.strip, cells))
            if filled == TOP_ROWS:
                break
    return records


@dataclass(frozen=True)
class _Ragged:
    """A row with another number of cells than there are headings. `why`: it cannot be used, "" for one that can."""

    number: int
    why: str
    cells: list[str]

    def cell(self, place: int) -> str:
        return self.cells[place] if place < len(self.cells) and not self.why else ""


@dataclass
class _Numbering:
    """Gives the rows of a block their numbers, from `next` on: those that pyarrow set aside come in between.

    Args:
        ragged: in their order; not given out yet.
        refused: number of the last ragged row that was refused.
        repeated: headings in the middle, so far.
        stopped: number of the row from which on the file cannot be read, and why.
    """

    next: int
    ragged: list[_Ragged] = field(default_factory=list)
    refused: int = 0
    repeated: int = 0
    stopped: tuple[int, str] | None = None

    def take(self, count: int) -> tuple[np.ndarray, list[_Ragged]]:
        """Return the numbers of `count` rows, and the ragged rows before the last of them; all that are left for no
        row."""
        between = 0 if count else len(self.ragged)
        while between < len(self.ragged) and self.ragged[between].number < self.next + count + between:
            between += 1
        taken, self.ragged = self.ragged[:between], self.ragged[between:]
        numbers = np.arange(self.next, self.next + count + between)
        self.next += count + between
        return np.setdiff1d(numbers, [row.number for row in taken], assume_unique=True), taken

    def set_aside(self, layout: _Layout, row: arrow_csv.InvalidRow) -> None:
        """Keep a ragged row, and say why it cannot be used."""
        number = layout.above + row.number
        cells = next(csv.reader(io.StringIO(row.text, newline=""), delimiter=layout.delimiter), [])
        why = ""
        if any(map(layout.repeats.may_be_one, cells)) and self.is_heading(layout, number, cells):
            cells = []
        elif UNCLOSED in row.text:
            why = _NEVER_CLOSED
        elif any(map(str.strip, cells[layout.width :])) or (
            any(map(str.strip, cells)) and (len(cells) < layout.needed or self.refused == number - 1)
        ):
            shown = "1 cell" if row.actual_columns == 1 else f"{row.actual_columns} cells"
            why = f"{shown} below {row.expected_columns} headings"
        self.refused = number if why else self.refused
        self.ragged.append(_Ragged(number, why, cells))

    def is_heading(self, layout: _Layout, number: int, cells: Sequence[str]) -> bool:
        """Whether a row repeats the headings; headings of other columns stop the reading."""
        try:
            repeated = layout.repeats.is_one(cells)
        except OtherHeadings as problem:
            self.stopped = self.stopped or (number, str(problem))
            return False
        self.repeated += repeated
        return repeated


def _blocks(path: Path, stream: BinaryIO, layout: _Layout, numbering: _Numbering) -> Iterator[pa.RecordBatch]:
    """Yield every cell as text, columns named by their position."""

    def keep(row: arrow_csv.InvalidRow) -> str:
        numbering.set_aside(layout, row)
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
) -> tuple[pa.RecordBatch, int]:
    """Return the typed rows of `block`, and how many of them have hits that were cut off."""
    numbers, ragged = numbering.take(block.num_rows)
    present = pc.and_(_not_blank(block, layout.places[key]), _no_headings(block, layout, numbering, key, numbers))
    rows = pa.array(numbers, pa.int64()).filter(present)
    cells = {name: block.column(place).filter(present) for name, place in layout.places.items()}
    refused = _unusable(cells, LOST, "bytes that are no text") if damaged else [""] * len(rows)
    if not layout.quoting.sound:
        names = {place: name for name, place in layout.places.items()}
        texts = {names.get(i, f"column {i + 1}"): column.filter(present) for i, column in enumerate(block.columns)}
        unclosed = _unusable(texts, UNCLOSED, _NEVER_CLOSED)
        refused = [one or other for one, other in zip(refused, unclosed, strict=True)]
    # Rows with another number of cells come back to their places.
    if ragged := [row for row in ragged if row.why or any(map(str.strip, row.cells))]:
        order = pc.sort_indices(rows := pa.concat_arrays([rows, pa.array([row.number for row in ragged], pa.int64())]))
        rows = rows.take(order)
        for name, place in layout.places.items():
            texts = pa.array([row.cell(place) for row in ragged], pa.string())
            cells[name] = pa.concat_arrays([cells[name], texts]).take(order)
        reasons = refused + [row.why for row in ragged]
        refused = [reasons[place] for place in order.to_pylist()]
    if numbering.stopped:
        above = pc.sum(pc.less(rows, numbering.stopped[0])).as_py() or 0
        rows, refused = rows[:above], refused[:above]
        cells = {name: column[:above] for name, column in cells.items()}
    cells = {name: _without_formula(column) for name, column in cells.items()}
    for name in _IDS & cells.keys():
        for index in cut_to_fifteen(cells[name]):
            refused[index] = refused[index] or f"{name}: {ROUNDED.format(cells[name][index].as_py().strip())}"
    batch = table.parse(cells, file=str(path), sheet="", rows=rows, source="test_set", refused=refused)
    return batch, count_cut_off(cells["recall_results"], batch) if "recall_results" in cells else 0


def _no_headings(
    block: pa.RecordBatch, layout: _Layout, numbering: _Numbering, key: str, numbers: np.ndarray
) -> pa.Array:
    """Return which rows of `block` do not repeat the headings; stop before headings of other columns."""
    no_headings = np.ones(block.num_rows, bool)
    look_alike = pc.match_substring_regex(block.column(layout.places[key]), layout.repeats.pattern)
    for index in pc.indices_nonzero(look_alike).to_pylist():
        if numbering.is_heading(layout, int(numbers[index]), [column[index].as_py() for column in block.columns]):
            no_headings[index] = False
    return pa.array(no_headings)


def _without_formula(column: pa.Array) -> pa.Array:
    formulas = pc.match_substring_regex(column, _AS_TEXT)
    if not pc.any(formulas).as_py():
        return column
    texts = pc.replace_substring(pc.replace_substring_regex(column.filter(formulas), _AS_TEXT, r"\1"), '""', '"')
    return pc.replace_with_mask(column, formulas, texts)


def _not_blank(block: pa.RecordBatch, key: int) -> pa.Array:
    blank = pc.match_substring_regex(block.column(key), _BLANK)
    if not pc.any(blank).as_py():
        return pc.invert(blank)
    for column in block.columns:
        blank = pc.and_(blank, pc.match_substring_regex(column, _BLANK))
    return pc.invert(blank)


def _unusable(cells: Mapping[str, pa.Array], mark: str, why: str) -> list[str]:
    """Return, for each row, why it cannot be used: the first of its cells that holds `mark`; "" for none."""
    refused = [""] * len(next(iter(cells.values())))
    for name, column in cells.items():
        for place in pc.indices_nonzero(pc.match_substring(column, mark)).to_pylist():
            refused[place] = refused[place] or f"{name}: {why}"
    return refused
