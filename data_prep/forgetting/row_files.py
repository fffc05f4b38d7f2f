"""Files of rows and running texts: what is of the person is found, and the rest written anew, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from python_calamine import CalamineWorkbook

from data_prep.bvt.review_columns import (
    ADVICE_COLUMNS,
    ADVICE_SHEET,
    REVIEW_CHOICES,
    REVIEW_COLUMNS,
    REVIEW_ID,
    REVIEW_SHEET,
)
from data_prep.bvt.row import COLUMNS, BvtRow
from data_prep.bvt.workbook import Sheet, write_sheets, write_workbook
from data_prep.rows.columns import TEXTS
from guard.personal.wanted import Wanted
from reward.records.files import replacing
from reward.records.sample import Hit
from reward.records.spreadsheet import ENCODING, CsvTable

MASK = "[已删除]"
_BATCH = 10_000
_ABOUT_DATA = re.compile("stats|CARD|report|samples_|agreement")  # pages that quote rows
_FREE_TEXTS = frozenset((*TEXTS, "question", "history", "chain", "answer", "best_answer"))
_ESCAPE = re.compile(r"(?:\\+u[0-9a-fA-F]{4})+")  # as JSON, within JSON too, writes characters beyond ASCII
_SHORTEST = 4  # characters of a removed row's text that is looked for in pages about the data


@dataclass
class Findings:
    """What of one artefact is of the person. `removed`: rows, or places in a running text. `texts`: of removed rows.
    `problem`: why nothing could be removed, ""."""

    found: int = 0
    removed: int = 0
    texts: set[str] = field(default_factory=set)
    problem: str = ""

    def take(self, row: Any) -> None:
        self.found += 1
        self.texts |= {text for text in _own_words(row) if len(text) >= _SHORTEST and not text.isascii()}


def _own_words(value: Any) -> Iterator[str]:
    """Yield what a row of any kind says in the columns of free text."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in _FREE_TEXTS and isinstance(inner, str):
                yield inner
            else:
                yield from _own_words(inner)


def forget_lines(path: Path, wanted: Wanted, *, remove: bool) -> Findings:
    """Look at each line of a log or of JSON lines."""
    findings, kept = Findings(), []
    with path.open("rb") as lines:
        for line in lines:
            row = _unpacked(_parsed(line))
            if wanted.is_in(row):
                findings.take(row)
            elif remove:
                kept.append(line)
    if findings.found and remove:
        with replacing(path) as partial, partial.open("wb") as out:
            out.writelines(kept)
        findings.removed = findings.found
    return findings


def _parsed(line: bytes) -> Any:
    text = line.decode("utf-8", errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def forget_parquet(path: Path, wanted: Wanted, *, remove: bool) -> Findings:
    """Look at each row of a Parquet file, JSON texts within it unpacked."""
    findings = Findings()
    with pq.ParquetFile(path) as table:
        kept = []
        for batch in table.iter_batches(_BATCH):
            keeps = []
            for row in batch.to_pylist():
                keeps.append(not wanted.is_in(_unpacked(row)))
                if not keeps[-1]:
                    findings.take(_unpacked(row))
            kept.append(keeps)
        if findings.found and remove:
            with replacing(path) as partial, pq.ParquetWriter(partial, table.schema_arrow) as out:
                for keeps, batch in zip(kept, table.iter_batches(_BATCH), strict=True):
                    out.write_batch(batch.filter(keeps))
            findings.removed = findings.found
    return findings


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unpacked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_unpacked(inner) for inner in value]
    if isinstance(value, str):
        if value.lstrip().startswith(("{", "[")) and (inner := _parsed(value.encode("utf-8", "replace"))) != value:
            return _unpacked(inner)
        return _ESCAPE.sub(_unescaped, value)
    return value


def _unescaped(match: re.Match[str]) -> str:
    try:
        return str(json.loads('"' + re.sub(r"\\+", r"\\", match.group()) + '"'))
    except ValueError:
        return match.group()


def forget_csv(path: Path, wanted: Wanted, *, remove: bool) -> Findings:
    """Look at each row below the headings of a table that these programs wrote."""
    findings = Findings()
    with path.open(encoding=ENCODING, newline="") as file:
        headings, *rows = list(csv.reader(file)) or [[]]
    kept = []
    for row in rows:
        if wanted.is_in(row):
            findings.take(row)
        else:
            kept.append(row)
    if findings.found and remove:
        with replacing(path) as partial, partial.open("w", encoding=ENCODING, newline="") as out:
            table = CsvTable(out, headings)
            for row in kept:
                table.write([cell.removeprefix("'") for cell in row])
        findings.removed = findings.found
    return findings


def forget_workbook(path: Path, wanted: Wanted, *, remove: bool) -> Findings:
    """Look at each row of a workbook; only those that these programs write are written anew: a batch test's, a medical
    review's, a batch of answers."""
    findings = Findings()
    sheets = {name: rows for name, rows in _sheets(path).items() if rows}
    for rows in sheets.values():
        for row in rows[1:]:
            if wanted.is_in([_unpacked(cell) for cell in row]):
                findings.take([_unpacked(cell) for cell in row])
    if not (findings.found and remove):
        return findings
    if _is_plain(sheets):
        _rewrite_plain(path, sheets, wanted)
        findings.removed = findings.found
        return findings
    if len(sheets) != 1 or tuple(next(iter(sheets.values()))[0]) != COLUMNS:
        findings.problem = "no workbook of these programs: remove the rows in Excel or WPS"
        return findings
    rows = next(iter(sheets.values()))[1:]
    write_workbook(path, [_bvt_row(row) for row in rows if not wanted.is_in([_unpacked(cell) for cell in row])])
    findings.removed = findings.found
    return findings


_WIDTHS = {**ADVICE_COLUMNS, **REVIEW_COLUMNS}
_WIDTH = 40  # of other columns


def _is_plain(sheets: dict[str, list[list[Any]]]) -> bool:
    """Whether a workbook is a medical review's, or a batch of a medical assistant's answers."""
    headings = {name: rows[0] for name, rows in sheets.items()}
    if set(headings) in ({REVIEW_SHEET, ADVICE_SHEET}, {REVIEW_SHEET}):
        return {REVIEW_ID, "check"} <= set(headings[REVIEW_SHEET])
    return set(headings) == {"notice", "answers"} and headings["notice"] == ["safety notice"]


def _rewrite_plain(path: Path, sheets: dict[str, list[list[Any]]], wanted: Wanted) -> None:
    """Write a workbook of plain tables without the person's rows, nor the rows of other sheets with their review_id."""
    gone = {
        row[rows[0].index(REVIEW_ID)]
        for rows in sheets.values()
        if REVIEW_ID in rows[0]
        for row in rows[1:]
        if wanted.is_in([_unpacked(cell) for cell in row])
    }
    written = {}
    for name, (headings, *rows) in sheets.items():
        kept = [row for row in rows if not wanted.is_in([_unpacked(cell) for cell in row]) and gone.isdisjoint(row[:1])]
        columns = {str(heading): _WIDTHS.get(str(heading), _WIDTH) for heading in headings}
        choices = REVIEW_CHOICES if name == REVIEW_SHEET else {}
        written[name] = Sheet(columns, [[_cell_text(cell) for cell in row] for row in kept], choices)
    write_sheets(path, written)


def _cell_text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _sheets(path: Path) -> dict[str, list[list[Any]]]:
    book = CalamineWorkbook.from_path(path)
    return {name: book.get_sheet_by_name(name).to_python() for name in book.sheet_names}


def _bvt_row(cells: list[Any]) -> BvtRow:
    values = dict(zip(COLUMNS, cells, strict=True))
    hits = values["recall_results"]
    numbers = ("recall_count", "top1_score", "avg_top3_score")
    return BvtRow(
        **{name: str(value) for name, value in values.items() if name not in (*numbers, "success", "slices")}
        | {name: values[name] if values[name] != "" else None for name in numbers}
        | {
            "success": bool(values["success"]),
            "slices": tuple(filter(None, str(values["slices"]).split(","))),
            "recall_results": tuple(Hit(**hit) for hit in json.loads(hits)) if hits else None,
        }
    )


def forget_page(path: Path, wanted: Wanted, texts: set[str], *, remove: bool) -> Findings:
    """Look at a running text: the person's words are replaced by a mask, in pages about the data those of removed rows
    too."""
    findings = Findings()
    page = path.read_text(encoding="utf-8", errors="replace")
    for text in sorted(texts, key=len, reverse=True) if _ABOUT_DATA.search(path.name) else ():
        findings.found += page.count(text)
        page = page.replace(text, MASK)
    page, count = wanted.redact(page, MASK)
    findings.found += count
    if findings.found and remove:
        with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as out:
            out.write(page)
        findings.removed = findings.found
    return findings


ROW_FILES: dict[str, Callable[..., Findings]] = {
    ".jsonl": forget_lines,
    ".ndjson": forget_lines,
    ".log": forget_lines,
    ".parquet": forget_parquet,
    ".csv": forget_csv,
    ".xlsx": forget_workbook,
}
PAGES = (".json", ".html", ".md", ".txt", ".yaml", ".yml", ".svg")
