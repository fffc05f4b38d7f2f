"""Files of the user and of a run: read with errors that name file, row and field; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from guard.private_files import keep_private, make_folder
from plain_text.text_file import open_text

_R = TypeVar("_R", bound=BaseModel)


class BadInput(Exception):
    """User data or configuration that cannot be used: one line naming file, row and field."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; it takes the name `path` once the block ends well. The file is its
    owner's alone (0600).

    Raises:
        BadInput: the file cannot be written (names it and why); what stood at `path` stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        make_folder(path.parent)
        partial.unlink(missing_ok=True)
        os.close(keep_private(str(partial), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        yield partial
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_atomically(path: Path, lines: Iterable[str]) -> None:
    """Write `lines` beside `path`, then rename: a full disk or a kill leaves the earlier file intact."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line + "\n")


@contextmanager
def writing_lines(path: Path) -> Iterator[Callable[[str], None]]:
    """Yields what appends a line to `path`, which appears once the block ends well."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as out:

        def append(line: str) -> None:
            out.write(line + "\n")

        yield append


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, [json.dumps(value, ensure_ascii=False, indent=2)])


def file_sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, object) of each non-blank line, in any encoding that `plain_text.text_file` reads.

    Raises:
        BadInput: the file is missing or no text, or a line is not a JSON object.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if not path.stat().st_size:
        return
    for row, line in enumerate(open_text(path, BadInput).lines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long, or nested too deeply"
            raise BadInput(f"{path}: row {row}: not JSON ({what})") from None
        if not isinstance(value, dict):
            raise BadInput(f"{path}: row {row}: expected an object, found {type(value).__name__}")
        yield row, value


def first_problem(error: ValidationError) -> str:
    """`field: message` of a validation error's first finding."""
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'record'}: {problem['msg']}"


def read_records(path: Path, record: type[_R]) -> Iterator[_R]:
    """Yield the records of a JSONL file.

    Raises:
        BadInput: no such file, or a row that is no such record.
    """
    for row, values in read_jsonl(path):
        try:
            yield record.model_validate(values)
        except ValidationError as error:
            raise BadInput(f"{path}: row {row}: {first_problem(error)}") from None


def read_last_line(path: Path) -> dict[str, Any]:
    """The JSON object on the last line of a file that another process appends to; empty when there is none yet."""
    if not path.is_file():
        return {}
    with path.open("rb") as lines:
        lines.seek(max(0, path.stat().st_size - 65536))
        complete = lines.read().decode("utf-8", errors="ignore").rpartition("\n")[0].rpartition("\n")[2]
    try:
        value = json.loads(complete or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
