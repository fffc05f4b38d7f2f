"""Find the customer's files and read those of every known kind into Arrow batches of `columns.ROWS`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.readers.csv_file import read_csv
from data_prep.readers.log_file import read_logs
from data_prep.readers.workbook import read_workbook
from guard.personal.masking import mask_message
from reward.records.files import BadInput, writing_lines
from reward.settings.data import SourceSettings

_TABLES = {".xlsx": read_workbook, ".xlsm": read_workbook, ".xls": read_workbook, ".csv": read_csv, ".tsv": read_csv}
_LOGS = (".jsonl", ".ndjson", ".json", ".log")
_PACKED = ("", ".gz", ".bz2", ".zst")
KINDS = (*_TABLES, *(log + packed for log in _LOGS for packed in _PACKED))
# A log that was rotated: app.log.1, app.log.2026-01-02.gz, app.jsonl-20260102.
_ROTATED = re.compile(r"\.(jsonl|ndjson|json|log)([.\-_](\d[\d\-_.T:]*|bak|old))+(\.gz|\.bz2|\.zst)?$", re.IGNORECASE)
_NAMED = 10  # files passed over that a note names


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read to its end; rows before the damage, if any, were."""

    file: str
    reason: str


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files among `paths` and, in name order, those of a readable kind in its folders and theirs; each once.

    Hidden files and Excel's lock files (`~$…`) in folders are passed over.

    Raises:
        BadInput: no such path, a file of a kind we do not read, or a folder without one that we do.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if _is_readable(file, path))
            if not files:
                raise BadInput(f"{path}: no file to read in this folder (kinds: {' '.join(KINDS)})")
        elif not path.is_file():
            raise BadInput(f"{path}: no such file or folder")
        elif not _is_kind(path):
            raise BadInput(f"{path}: expected one of {' '.join(KINDS)}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def write_quarantine(path: Path, unreadable: Iterable[Unreadable], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON object a line: first the files that could not be read, without a row, then the rows left out."""
    with writing_lines(path) as write:
        for line in chain(map(asdict, unreadable), rows):
            write(json.dumps(line, ensure_ascii=False))
    return path


def passed_over(paths: Sequence[Path]) -> list[str]:
    """Count and name in one line, or none, the files of no readable kind in the folders among `paths`, hidden ones
    aside."""
    folders = [path for path in paths if path.is_dir()]
    unknown = [file for folder in folders for file in sorted(folder.rglob("*")) if _is_other(file, folder)]
    if not unknown:
        return []
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    shown = ", ".join(map(str, unknown[:_NAMED]))
    return [f"{len(unknown)} files passed over (no kind that is read): {shown}{more}"]


def unreadable(file: Path, problem: BadInput) -> Unreadable:
    """Say why a file could not be read, without the personal data that the reason may quote."""
    return Unreadable(str(file), mask_message(str(problem).removeprefix(f"{file}: "), keep=[str(file)]))


class Sources:
    """Files and folders of one tenant's data, read one after another.

    Args:
        unreadable: the files that could not be read to their end, once `batches` is through.
        notes: what else a user should know of the files, a line each: sheets passed over, a quote left open. Like the
            reasons of `unreadable`, they hold no personal data.
    """

    def __init__(self, paths: Sequence[Path], settings: SourceSettings, required: Sequence[str]):
        self._paths, self.files = paths, find_files(paths)
        self.unreadable: list[Unreadable] = []
        self.notes: list[str] = []
        self._settings, self._required = settings, required

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield every row, usable or refused, in file order.

        Raises:
            BadInput: of no file any row could be read.
        """
        self.unreadable.clear()
        self.notes.clear()
        self.notes += passed_over(self._paths)
        rows = 0
        for file in self.files:
            try:
                for batch in self._read(file):
                    rows += batch.num_rows
                    yield batch
            except BadInput as problem:
                self.unreadable.append(unreadable(file, problem))
            self.notes[:] = [mask_message(note, keep=[str(file) for file in self.files]) for note in self.notes]
        if not rows:
            first, *others = self.unreadable
            more = f" (and {len(others)} more, none of which can be read)" if others else ""
            raise BadInput(f"{first.file}: {first.reason}{more}")

    def _read(self, file: Path) -> Iterator[pa.RecordBatch]:
        reader = _TABLES.get(file.suffix.lower())
        if reader is None:
            return read_logs(file, self._settings, self._required, self.notes)
        return reader(file, self._settings, self._required, self.notes)


def _is_kind(path: Path) -> bool:
    return path.name.lower().endswith(KINDS) or bool(_ROTATED.search(path.name))


def _is_readable(file: Path, folder: Path) -> bool:
    return not _is_hidden(file, folder) and _is_kind(file) and file.is_file()


def _is_other(file: Path, folder: Path) -> bool:
    return not _is_hidden(file, folder) and not _is_kind(file) and file.is_file()


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "~$")) for part in file.relative_to(folder).parts)
