"""Sources of a knowledge base -> passages: a BEIR `corpus.jsonl`, or a folder of .txt files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SNIPPET_LENGTH = 300

_SENTENCE = re.compile(r"[^。！？!?；;…]*[。！？!?；;…]+[”’」』）)\"']*|[^。！？!?；;…]+$")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_PARAGRAPH = re.compile(r"\n\s*\n")


class IngestError(Exception):
    """A knowledge base or an index that cannot be used: one line naming the file, and the row where there is one."""


@dataclass(frozen=True)
class Passage:
    doc_id: str
    content: str


def read_passages(kb_dir: Path) -> list[Passage]:
    """Passages of `kb_dir/corpus.jsonl` when there is one, else of every .txt file below `kb_dir`.

    A BEIR document stays one passage under its own `_id`, so that qrels hold; its title becomes the first line.
    Passages without any letter or digit are left out.

    Raises:
        IngestError: nothing to read, no text in it, a bad row, an `_id` given twice, an undecodable file.
    """
    if not kb_dir.is_dir():
        raise IngestError(f"{kb_dir}: no such folder")
    corpus = kb_dir / "corpus.jsonl"
    if corpus.is_file():
        passages = list(_beir_passages(corpus))
        source = str(corpus)
    else:
        texts = sorted(path for path in kb_dir.rglob("*.txt") if path.is_file())
        if not texts:
            raise IngestError(f"{kb_dir}: holds neither corpus.jsonl nor any .txt file")
        passages = [passage for path in texts for passage in _text_passages(path, path.relative_to(kb_dir).as_posix())]
        source = f"{kb_dir} ({len(texts)} .txt files)"
    passages = [passage for passage in passages if _LETTER_OR_DIGIT.search(passage.content)]
    if not passages:
        raise IngestError(f"{source}: holds no text")
    return passages


def content_hash(passages: list[Passage]) -> str:
    """SHA-256 of the passages in their order."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(json.dumps([passage.doc_id, passage.content]).encode())
    return digest.hexdigest()


def split_snippets(text: str, limit: int = SNIPPET_LENGTH) -> list[str]:
    """Snippets of at most `limit` characters, cut at sentence ends; a longer sentence is cut hard."""
    snippets: list[str] = []
    current = ""
    for sentence in _SENTENCE.findall(text):
        if len(current) + len(sentence) > limit:
            if current.strip():
                snippets.append(current.strip())
            current = ""
            while len(sentence) > limit:
                snippets.append(sentence[:limit].strip())
                sentence = sentence[limit:]
        current += sentence
    if current.strip():
        snippets.append(current.strip())
    return snippets


def _beir_passages(corpus: Path) -> Iterator[Passage]:
    seen: set[str] = set()
    for row, line in enumerate(_decoded(corpus).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            raise IngestError(f"{corpus}: row {row}: not JSON ({error.msg})") from None
        if not isinstance(document, dict):
            raise IngestError(f"{corpus}: row {row}: expected an object, found {type(document).__name__}")
        doc_id, text = document.get("_id"), document.get("text")
        if not isinstance(doc_id, str | int) or not str(doc_id).strip():
            raise IngestError(f"{corpus}: row {row}: _id is missing")
        if not isinstance(text, str):
            raise IngestError(f"{corpus}: row {row}: text is missing")
        if str(doc_id) in seen:
            raise IngestError(f"{corpus}: row {row}: _id {str(doc_id)!r} was given before")
        seen.add(str(doc_id))
        yield Passage(str(doc_id), f"{document.get('title') or ''}\n{text}".strip())


def _text_passages(path: Path, name: str) -> Iterator[Passage]:
    """Passages `name#1`, `name#2`, …: paragraphs where blank lines part the file, else lines."""
    text = _decoded(path).replace("\r\n", "\n").replace("\r", "\n").strip()
    blocks = _PARAGRAPH.split(text) if _PARAGRAPH.search(text) else text.split("\n")
    snippets = (snippet for block in blocks for snippet in split_snippets(block.strip()))
    for number, snippet in enumerate(snippets, start=1):
        yield Passage(f"{name}#{number}", snippet)


def _decoded(path: Path) -> str:
    """Text of a UTF-8, UTF-16 (with BOM) or GB 18030 file: what Chinese Windows programs write."""
    raw = path.read_bytes()
    encodings = ["utf-16"] if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise IngestError(f"{path}: neither UTF-8, UTF-16 nor GB 18030 text")
