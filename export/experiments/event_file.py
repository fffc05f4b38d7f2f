"""Events that another system knows of, from a CSV or JSONL file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from export.experiments.log_lines import EventLine
from export.serving.outcome_log import KEY_FILE, read_key, unit_hash
from guard.personal.masking import mask_id
from plain_text.text_file import open_text
from reward.records.files import BadInput, first_problem, read_jsonl

_DELIMITERS = ",;\t"
LONGEST = 100_000  # characters of a cell; the reader's own limit is the process's, which other readers raise


def read_events(path: Path, folder: Path) -> list[EventLine]:
    """Read a file of events: `event`, and `request_id`, `user_id` or `session_id`; `at` (ISO 8601) and `doc_id` may be
    missing. Any delimiter and encoding of a spreadsheet program.

    Args:
        folder: of the outcome log, with the key that users are hashed with.

    Raises:
        BadInput: the file is missing, empty or no table, or a row lacks what it needs.
    """
    rows = {".jsonl": _objects, ".csv": _cells}.get(path.suffix.lower())
    if rows is None:
        raise BadInput(f"{path}: expected a .csv or .jsonl file of events")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if not (folder / KEY_FILE).is_file():
        raise BadInput(f"{folder / KEY_FILE}: missing, so users of {path} cannot be found in the log")
    key = read_key(folder)
    events = []
    for row, record in rows(path):
        who = record.get("user_id") or record.get("session_id") or ""
        request_id, event = record.get("request_id") or "", record.get("event") or ""
        if not event or not (who or request_id):
            raise BadInput(f"{path}: row {row}: needs event, and request_id, user_id or session_id")
        facts = {
            "event": event,
            "at": record.get("at") or "",
            "request_id": request_id,
            "unit": unit_hash(key, who),
            "doc_id": mask_id(record.get("doc_id") or ""),
        }
        try:
            events.append(EventLine.model_validate(facts))
        except ValidationError as error:
            raise BadInput(f"{path}: row {row}: {first_problem(error)}") from None
    return events


def _objects(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for row, record in read_jsonl(path):
        yield row, {name: "" if value is None else str(value) for name, value in record.items()}


def _cells(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row as a spreadsheet counts, cells by heading).

    Raises:
        BadInput: the file is no table, no heading is `event`, a row has more cells than there are headings, or a cell
            is too long.
    """
    lines = open_text(path, BadInput).lines()
    first = next(lines, "")
    reader = csv.reader(chain([first], lines), delimiter=max(_DELIMITERS, key=first.count))
    try:
        headings = [name.strip().strip("\ufeff").casefold() for name in next(reader, [])]
        if "event" not in headings:
            raise BadInput(f"{path}: row 1: no column is named event")
        for row, cells in enumerate(reader, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            if any(cell.strip() for cell in cells[len(headings) :]):
                raise BadInput(f"{path}: row {row}: has more cells than there are headings")
            if any(len(cell) > LONGEST for cell in cells):
                raise BadInput(f"{path}: row {row}: not a table: a cell of more than {LONGEST:,} characters")
            yield row, {name: cell.strip() for name, cell in zip(headings, cells, strict=False)}
    except csv.Error as error:
        raise BadInput(f"{path}: not a table: {error}") from None
