"""The workbook that a medical reviewer fills in, and back: labels, each held to the texts that were sent out.

The sheet `review` tells neither opinion; `advice` has them, for afterwards. Each row carries a check of every text in
it: a text that was edited on the way is found by its row and column, and is no label of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa

from data_prep.bvt.review_columns import (
    ADVICE_COLUMNS,
    ADVICE_SHEET,
    REVIEW_CHOICES,
    REVIEW_COLUMNS,
    REVIEW_SHEET,
)
from data_prep.bvt.workbook import Sheet, write_sheets
from data_prep.readers.workbook import read_workbook
from data_prep.rows.cells import Table
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

TEXTS = ("question", "history", "chain", "answer")
_SAFE = {"是": True, "否": False, "yes": True, "no": False, "y": True, "n": False, "1": True, "0": False}
_ID = re.compile(r"mr-[0-9a-f]{12}")
_MOST_CELL = 32_000  # characters: Excel cuts a longer cell at 32 767


@dataclass
class Reviewed:
    """What came back: a label a row; `problems`, a line for each row that is none; `open`, rows without an answer;
    `missing`, ids that were sent out and are not there."""

    labels: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    open: int = 0
    missing: list[str] = field(default_factory=list)


def write_review(path: Path, drawn: Sequence[Mapping[str, Any]]) -> None:
    """Write the workbook of the drawn answers.

    Raises:
        BadInput: the file cannot be written.
    """
    rows, advice = [], []
    for line in drawn:
        texts = _texts(line)
        rows.append([line["review_id"], *texts.values(), "", "", "", _check(line["review_id"], texts)])
        teacher = line.get("teacher") or {}
        said = f"{teacher.get('teacher_score')} {'flag' if teacher.get('safety_flag') else ''} {teacher.get('comment')}"
        faults = ", ".join((line.get("rules") or {}).get("faults") or ()) or "none"
        advice.append(
            [
                line["review_id"],
                str(line.get("stratum") or ""),
                str(line.get("conflict") or ""),
                f"faults: {faults}",
                said if teacher else "not asked",
                str(line.get("advice") or ""),
            ]
        )
    review = Sheet(REVIEW_COLUMNS, rows, REVIEW_CHOICES)
    write_sheets(path, {REVIEW_SHEET: review, ADVICE_SHEET: Sheet(ADVICE_COLUMNS, advice)})


def read_review(path: Path, sent: Mapping[str, Mapping[str, Any]]) -> Reviewed:
    """Read the labels of a filled-in workbook: `safe` is 是 or 否 (yes, no), `score` 1 to 5 or blank.

    Args:
        sent: review_id → what was sent out.

    Raises:
        BadInput: the file is no workbook with the sheet's columns.
    """
    review, seen = Reviewed(), dict[str, int]()
    for batch in read_workbook(path, SourceSettings(), ("question", "review_id", "safe", "check"), table=_TABLE):
        for cells in batch.to_pylist():
            _take(path, cells, sent, seen, review)
    review.missing = sorted(sent.keys() - seen.keys())
    return review


def _take(
    path: Path, cells: Mapping[str, Any], sent: Mapping[str, Mapping[str, Any]], seen: dict[str, int], review: Reviewed
) -> None:
    one, where = cells["review_id"].strip(), f"{path}: row {cells['row']}"
    if cells["refused"]:
        review.problems.append(f"{where}: {cells['refused']}")
    elif not _ID.fullmatch(one) or one not in sent:
        review.problems.append(f"{where}: review_id: {one!r} was not sent out")
    elif one in seen:
        review.problems.append(f"{where}: review_id: {one} is in row {seen[one]} already")
        _drop_contradicted(one, cells, review)
    else:
        seen[one] = cells["row"]
        texts = _texts(sent[one])
        changed = [name for name in TEXTS if _plain(cells[name]) != texts[name]]
        if cells["check"].strip() != _check(one, texts):
            changed.append("check")
        label = _label(cells)
        if changed:
            review.problems.append(f"{where}: {', '.join(changed)}: was changed since the sheet was written ({one})")
        elif not cells["safe"].strip():
            review.open += 1
        elif label["safe"] is None:
            review.problems.append(f"{where}: safe: {cells['safe']!r} is none of 是, 否 ({one})")
        elif isinstance(label["score"], str):
            review.problems.append(f"{where}: score: {cells['score']!r} is none of 1 to 5 ({one})")
        else:
            review.labels.append({**sent[one], "label": label})


def _drop_contradicted(one: str, cells: Mapping[str, Any], review: Reviewed) -> None:
    """Drop the label of a row whose repetition says something else: nobody knows which one was meant."""
    for place, line in enumerate(review.labels):
        if line["review_id"] == one:
            label, again = line["label"], _label(cells)
            if (label["safe"], label["score"]) != (again["safe"], again["score"]):
                review.problems[-1] += ", with another label: neither counts"
                del review.labels[place]
            return


def _label(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says; `safe` is None where it is neither word, `score` a text where it is no number."""
    safe = _SAFE.get(normalize("NFKC", cells["safe"]).strip().casefold())
    score = normalize("NFKC", cells["score"]).strip().removesuffix(".0")
    known = int(score) if score in {"1", "2", "3", "4", "5"} else score or None
    return {"safe": safe, "score": known, "note": cells["note"].strip()}


def _texts(line: Mapping[str, Any]) -> dict[str, str]:
    return {name: _plain(str(line.get(name) or ""))[:_MOST_CELL] for name in TEXTS}


def _plain(text: str) -> str:
    """Return the text as a spreadsheet keeps it: line ends of one kind, no blanks around a line, none at the ends."""
    lines = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(" ".join(line.split()) for line in lines).strip()


def _check(one: str, texts: Mapping[str, str]) -> str:
    joined = "\n".join(f"{name} {text}" for name, text in texts.items())
    return f"c{hashlib.sha256(f'{one} {joined}'.encode()).hexdigest()[:8]}"


def _parse(columns: Mapping[str, Any], *, rows: Sequence[int], refused: Sequence[str], **_: Any) -> pa.RecordBatch:
    """Return the cells as texts, with their row and why it was refused."""

    def texts(name: str) -> list[str]:
        cells = columns.get(name)
        values = [None] * len(rows) if cells is None else cells.to_pylist() if isinstance(cells, pa.Array) else cells
        return ["" if value is None else str(value) for value in values]

    found = {name: pa.array(texts(name), pa.string()) for name in REVIEW_COLUMNS}
    found |= {"row": pa.array(list(rows), pa.int64()), "refused": pa.array(list(refused), pa.string())}
    return pa.RecordBatch.from_pydict(found)


_TABLE = Table({}, tuple(REVIEW_COLUMNS), _parse)


def why_empty(review: Reviewed, path: Path) -> None:
    """Raise BadInput where nothing can be learnt from a sheet."""
    if not review.labels:
        first = f"; {review.problems[0]}" if review.problems else f"; {review.open} rows are not filled in"
        raise BadInput(f"{path}: holds no label{first}")
