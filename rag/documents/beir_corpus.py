"""A BEIR `corpus.jsonl`: a document a row, `{"_id", "title", "text"}`, and `"questions"` where people wrote some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plain_text.text_file import open_text
from rag.documents.document_name import LONGEST_NAME, is_fit
from rag.documents.records import Document, IngestError, Passage

_LONGEST_ROW = 16 << 20  # characters


def read_corpus(path: Path, name: str) -> Iterator[Document]:
    """Yield a document of one passage for each row, row by row, both called by the row's `_id`.

    The text stays whole however long it is, so that relevance judgements hold; its title becomes the first line.

    Raises:
        IngestError: a row that is no such object, an `_id` given twice.
    """
    seen: set[str] = set()
    for number, line in enumerate(open_text(path, IngestError, name).lines(_LONGEST_ROW), start=1):
        if not line.strip():
            continue
        where = f"{name}: row {number}"
        if len(line) == _LONGEST_ROW:
            raise IngestError(f"{where}: longer than {_LONGEST_ROW} characters")
        passage = _passage(_row(line, where), where)
        if passage.key in seen:
            raise IngestError(f"{where}: _id {passage.key!r} was given before")
        seen.add(passage.key)
        yield Document(passage.key, (passage,))


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise IngestError(f"{where}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets thousands deep
        raise IngestError(f"{where}: not JSON that can be read") from None
    if not isinstance(row, dict):
        raise IngestError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def _passage(row: dict[str, Any], where: str) -> Passage:
    key, title, text, questions = row.get("_id"), row.get("title"), row.get("text"), row.get("questions") or []
    if isinstance(key, bool) or not isinstance(key, str | int) or not str(key).strip():
        raise IngestError(f"{where}: _id is missing")
    key = str(key)
    if not is_fit(key):
        raise IngestError(f"{where}: _id is longer than {LONGEST_NAME} characters or holds control characters")
    if not isinstance(text, str):
        raise IngestError(f"{where}: text is missing")
    if not isinstance(title, str | None):
        raise IngestError(f"{where}: title is no text")
    if not isinstance(questions, list) or not all(isinstance(question, str) for question in questions):
        raise IngestError(f"{where}: questions is no list of texts")
    content = f"{title or ''}\n{text}".strip()
    return Passage(key, content, tuple(question.strip() for question in questions if question.strip()))
