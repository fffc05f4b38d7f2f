"""Files of a knowledge base → its documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from rag.documents.beir_corpus import read_corpus
from rag.documents.document_name import document_name
from rag.documents.faq_workbook import faq_passages
from rag.documents.pdf_file import LARGEST_TEXT, pdf_snippets
from rag.documents.reader_process import SMALL_FILE, read_in_process
from rag.documents.records import Document, IngestError, Passage
from rag.documents.text_file import LARGEST_MARKDOWN, markdown_snippets, read_text, text_snippets

_TEXT = frozenset({".txt", ".md", ".markdown"})
_WORKBOOK = frozenset({".xlsx", ".xlsm", ".xls"})
SUFFIXES = frozenset({".pdf", ".jsonl", *_TEXT, *_WORKBOOK})
_UNSEALED = frozenset({".jsonl", *_TEXT})

LONGEST_PASSAGE, LONGEST_QUESTION = 100_000, 4000  # characters
MOST_QUESTIONS = 1000

_CORPUS, _QUERIES = "corpus.jsonl", "queries.jsonl"
_ZIP, _OLE, _PDF = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"%PDF-"
_PDF_STARTS_WITHIN = 1024  # bytes, as PDF readers have it
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LONE_SURROGATE_OR_NUL = re.compile("[\ud800-\udfff\0]")


def find_documents(folder: Path) -> list[tuple[Path, str]]:
    """Return the files below `folder` to read, with the names of their documents, by name.

    `folder/corpus.jsonl` alone where there is one. Empty files, hidden ones, the lock files of Office (`~$…`) and
    BEIR's `queries.jsonl` are passed over.

    Raises:
        IngestError: nothing to read, a file whose name cannot be a document's, two files of one name.
    """
    if not folder.is_dir():
        raise IngestError(f"{folder}: no such folder")
    if (folder / _CORPUS).is_file():
        return [(folder / _CORPUS, _CORPUS)]
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        hidden = any(part.startswith((".", "~$")) for part in below.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or path.name == _QUERIES:
            continue
        if not path.is_file() or not path.stat().st_size:
            continue
        name = document_name(below.as_posix())
        if name in found:
            raise IngestError(f"{folder}: {name}: two files of this name, differing in how its characters are encoded")
        found[name] = path
    if not found:
        raise IngestError(f"{folder}: holds neither {_CORPUS} nor any {', '.join(sorted(SUFFIXES))} file")
    return [(path, name) for name, path in found.items()]


def read_documents(path: Path, name: str, *, apart: bool = False, sealed: bool = False) -> Iterator[Document]:
    """Yield the documents of one file, by the kind that `name` ends in: one, or each row's of a .jsonl (streamed).

    Passages are called `<name>#1`, `<name>#2`, …, those of a .jsonl by their `_id`. Passages without any letter or
    digit are left out. `apart`: a large file of any kind is read, and its tokens are counted, in a sealed process.
    `sealed`: this is that process.

    Raises:
        IngestError: `name` (see `document_name`), a file of another kind than its name says, without text, damaged,
            encrypted, or made to exhaust its reader. The line begins with the document's name.
    """
    name = document_name(name)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise IngestError(f"{name}: of no kind that can be read ({', '.join(sorted(SUFFIXES))})")
    try:
        _check_kind(path, name, suffix)
        if not sealed and (suffix not in _UNSEALED or (apart and path.stat().st_size > SMALL_FILE)):
            yield from read_in_process(path, name, count_tokens=apart)
            return
        empty = True
        for document in _documents(path, name, suffix):
            passages = tuple(_clean(p, name) for p in document.passages if _LETTER_OR_DIGIT.search(p.content))
            if passages:
                yield replace(document, passages=passages)
                empty = False
    except OSError as error:
        raise IngestError(f"{name}: {error.strerror or error}") from None
    if empty:
        raise IngestError(f"{name}: holds no text")


def _documents(path: Path, name: str, suffix: str) -> Iterator[Document]:
    if suffix == ".jsonl":
        yield from read_corpus(path, name)
        return
    if suffix in _TEXT:
        if suffix == ".txt":
            snippets = text_snippets(read_text(path, name))
        else:
            snippets = markdown_snippets(read_text(path, name, LARGEST_MARKDOWN))
        entries: list[tuple[str, tuple[str, ...]]] = [(snippet, ()) for snippet in snippets]
    elif suffix == ".pdf":
        entries = [(snippet, ()) for snippet in pdf_snippets(path, name)]
    else:
        entries = list(_bounded(faq_passages(path, name), name))
    passages = (Passage(f"{name}#{number}", *entry) for number, entry in enumerate(entries, start=1))
    yield Document(name, tuple(passages))


def _bounded(entries: Iterator[tuple[str, tuple[str, ...]]], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    length = 0
    for content, questions in entries:
        length += len(content) + sum(map(len, questions))
        if length > LARGEST_TEXT:
            raise IngestError(f"{name}: holds more text than one document may: split it")
        yield content, questions


def _check_kind(path: Path, name: str, suffix: str) -> None:
    with path.open("rb") as file:
        start = file.read(_PDF_STARTS_WITHIN)
    if not start:
        raise IngestError(f"{name}: the file is empty")
    if suffix == ".pdf":
        fits = _PDF in start
    elif suffix in _WORKBOOK:
        fits = start.startswith((_ZIP, _OLE))
    else:
        fits = not start.startswith((_ZIP, _OLE, _PDF))
    if not fits:
        raise IngestError(f"{name}: no {suffix} file: it begins with {start[:8]!r}")


def _clean(passage: Passage, name: str) -> Passage:
    """Remove what SQLite and UTF-8 cannot hold.

    Raises:
        IngestError: the passage or a question of it is longer than one may be.
    """
    where = passage.key if passage.key.startswith(name) else f"{name}: {passage.key}"
    if len(passage.content) > LONGEST_PASSAGE:
        raise IngestError(f"{where}: longer than {LONGEST_PASSAGE} characters: split it")
    if any(len(question) > LONGEST_QUESTION for question in passage.questions):
        raise IngestError(f"{where}: a question is longer than {LONGEST_QUESTION} characters")
    if len(passage.questions) > MOST_QUESTIONS:
        raise IngestError(f"{where}: has more than {MOST_QUESTIONS} questions")
    content, *questions = (_LONE_SURROGATE_OR_NUL.sub("\ufffd", text) for text in (passage.content, *passage.questions))
    return Passage(passage.key, content, tuple(questions))
