"""A workbook of questions and answers → passages with their questions."""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, time
from itertools import islice
from pathlib import Path
from typing import Any

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from plain_text.marks import bound_marks
from rag.documents.cell_formats import CellFormats, read_cell_formats, shown
from rag.documents.records import IngestError
from rag.documents.snippets import SNIPPET_LENGTH, split_snippets

QUESTION_LENGTH = 150  # characters of a snippet at most; the whole question is a key of its own
_QUESTION = frozenset({"问题", "标准问题", "标准问", "问", "question", "q"})
_ANSWER = frozenset({"答案", "标准答案", "回答", "答", "answer", "a"})
_SIMILAR = frozenset({"相似问", "相似问题", "相似问法", "扩展问", "similar questions", "similar question", "similar"})
_AROUND_HEADING = " *:0123456789一二三四五六七八九十()_-"
_UNKNOWN = "\0formula "  # no cell's text begins so
_HEADING_ROWS = 20  # a title and remarks may precede the headings
_BETWEEN_QUESTIONS = re.compile(r"[\n；;|｜]")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # an .xls, or an encrypted .xlsx
_LARGEST, _LARGEST_RATIO, _RATIO_COUNTS_FROM = 1 << 30, 100, 32 << 20  # bytes unpacked, times the file's size


def faq_passages(path: Path, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (question and answer, (question, similar questions …)) of every row with an answer, on every visible sheet.

    The columns are found by their headings. An answer too long for one passage goes on in further ones, each with the
    question as its first line; the questions are keys to the first. Several columns of answers (答案1, 答案2) are one
    answer. A question without an answer is no knowledge yet
    and passed over. Merged cells count in each of their rows.

    Raises:
        IngestError: no readable workbook, a formula whose value was never stored, protected by a password, of absurd
            size, or no sheet has both headings.
    """
    with path.open("rb") as file:
        ole = file.read(len(_OLE)) == _OLE
    if not ole:
        _check_unpacked_size(path, name)
    found = False
    try:
        book = CalamineWorkbook.from_filelike(path.open("rb"))
        for place, metadata in enumerate(book.sheets_metadata):
            if metadata.typ != SheetTypeEnum.WorkSheet or metadata.visible != SheetVisibleEnum.Visible:
                continue
            formats = CellFormats() if ole else read_cell_formats(path, place)
            rows = _rows(book.get_sheet_by_index(place), formats)
            columns = next(filter(None, (_columns(row) for row in islice(rows, _HEADING_ROWS))), None)
            if columns:
                found = True
                yield from _row_passages(rows, *columns, f"{name}: sheet {metadata.name!r}")
    except CalamineError as error:
        # Excel's encryption wraps an .xlsx in what looks like an .xls
        reason = "protected by a password, or damaged" if ole else "damaged"
        raise IngestError(f"{name}: no readable workbook: {reason} ({' '.join(str(error).split())[:200]})") from None
    if not found:
        raise IngestError(f"{name}: no sheet has the headings 问题 (or question) and 答案 (or answer)")


def _check_unpacked_size(path: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(path) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise IngestError(f"{name}: no readable workbook: damaged") from None
    if unpacked > _LARGEST or unpacked > max(_RATIO_COUNTS_FROM, _LARGEST_RATIO * path.stat().st_size):
        raise IngestError(f"{name}: unpacks to {unpacked >> 20} MiB: not read")


def _rows(sheet: CalamineSheet, formats: CellFormats) -> Iterator[list[str]]:
    """Yield the texts of every row, as Excel shows them; a cell merged over several rows counts in each of them. Of a
    formula whose value is not in the file the text is `_UNKNOWN` and its place."""
    first, left = sheet.start or (0, 0)
    tall: dict[int, list[tuple[int, int]]] = {}  # top row → bottom rows and columns of the cells that begin there
    for (top, column), (bottom, _) in sheet.merged_cell_ranges or ():
        if bottom > top and column >= left:
            tall.setdefault(top, []).append((bottom, column - left))
    standing: dict[int, tuple[int, str]] = {}  # column → bottom row and text of a tall cell
    for number, cells in enumerate(sheet.iter_rows()):
        row = [_text(cell, formats.codes.get((first + number, left + i))) for i, cell in enumerate(cells)]
        for i, text in enumerate(row):
            if not text and (first + number, left + i) in formats.unknown:
                row[i] = f"{_UNKNOWN}row {first + number + 1}, column {left + i + 1}"
        standing = {column: cell for column, cell in standing.items() if cell[0] >= number}
        for column, (_, text) in standing.items():
            row[column] = row[column] or text
        for bottom, column in tall.get(number, ()):
            if column < len(row):
                standing[column] = (bottom, row[column])
        yield row


def _text(cell: Any, code: str | None) -> str:
    if code and isinstance(cell, int | float) and not isinstance(cell, bool) and (text := shown(cell, code)):
        return text
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, date | time):
        return cell.isoformat()
    return str(cell).replace("\r\n", "\n").strip()


def _columns(row: Sequence[str]) -> tuple[int, list[int], list[int]] | None:
    """Return the columns of the question, the answers and the similar questions; None where this row is no heading."""
    headings = [unicodedata.normalize("NFKC", bound_marks(text)).casefold().strip(_AROUND_HEADING) for text in row]
    question = next((place for place, heading in enumerate(headings) if heading in _QUESTION), None)
    answers = [place for place, heading in enumerate(headings) if heading in _ANSWER]
    if question is None or not answers:
        return None
    return question, answers, [place for place, heading in enumerate(headings) if heading in _SIMILAR]


def _row_passages(
    rows: Iterator[list[str]],
    question_column: int,
    answer_columns: Sequence[int],
    similar_columns: Sequence[int],
    where: str,
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for row in rows:
        for column in (question_column, *answer_columns, *similar_columns):
            if row[column].startswith(_UNKNOWN):
                place = row[column].removeprefix(_UNKNOWN)
                raise IngestError(f"{where}, {place}: a formula without its value: save the workbook in Excel")
        question = row[question_column]
        answer = "\n".join(dict.fromkeys(row[column] for column in answer_columns if row[column]))
        if not answer:
            continue
        texts = [question, *(text for column in similar_columns for text in _BETWEEN_QUESTIONS.split(row[column]))]
        questions = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
        head = question[:QUESTION_LENGTH]
        for part in split_snippets(answer, SNIPPET_LENGTH - len(head) - 1):
            yield f"{head}\n{part}".strip(), questions
            questions = ()
