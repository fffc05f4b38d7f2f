"""Plain text and Markdown files → snippets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from markdown_it import MarkdownIt

from plain_text.text_file import open_text
from rag.documents.records import IngestError
from rag.documents.snippets import SNIPPET_LENGTH, split_lines, split_snippets

LARGEST, LARGEST_MARKDOWN = 256 << 20, 8 << 20  # bytes; Markdown takes seconds a megabyte to parse
HEADING_PATH_LENGTH = 100  # characters of a snippet at most
_PARAGRAPH = re.compile(r"\n\s*\n")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_CODE = ("fence", "code_block")
_WHOLE = ("fence", "code_block", "table_open")


def read_text(path: Path, name: str, largest: int = LARGEST) -> str:
    """Read the whole text, with plain newlines.

    Raises:
        IngestError: larger than `largest` bytes, in no encoding that `plain_text.text_file` reads, or no text.
    """
    if path.stat().st_size > largest:
        raise IngestError(f"{name}: larger than {largest >> 20} MiB: split it")
    text = "".join(open_text(path, IngestError, name).lines()).replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise IngestError(f"{name}: holds NUL characters: no text")
    return text


def text_snippets(text: str) -> Iterator[str]:
    """Cut paragraphs where blank lines part the text, else lines; no snippet reaches over two of them."""
    text = text.strip()
    for block in _PARAGRAPH.split(text) if _PARAGRAPH.search(text) else text.split("\n"):
        yield from split_snippets(block)


def markdown_snippets(text: str) -> Iterator[str]:
    """Cut each section, with the path of its headings ("产品 > 鱼油 > 用法") as first line.

    A section that fits is one snippet. Of a longer one, code blocks and tables are snippets of their own, whole where
    they fit; a longer table is cut between rows, each part under the table's heading.
    """
    text = _FRONT_MATTER.sub("", text, count=1)
    headings: dict[int, str] = {}
    blocks: list[tuple[str, bool]] = []
    for source, level, whole in _blocks(text):
        if level == 0:
            blocks.append((source, whole))
            continue
        # A heading without a text under it is in the path of a deeper one that follows, or says something itself.
        if blocks or (headings and level <= max(headings)):
            yield from _section_snippets(headings, blocks)
        headings = {above: title for above, title in headings.items() if above < level} | {level: source}
        blocks = []
    yield from _section_snippets(headings, blocks)


def _blocks(text: str) -> Iterator[tuple[str, int, bool]]:
    """Yield the source of each top block, its level where it is a heading (1 to 6, else 0), and whether it is to stay
    whole."""
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse(text)
    for place, token in enumerate(tokens):
        if token.level or token.map is None or token.nesting < 0 or token.type == "hr":
            continue
        if token.type == "heading_open":
            yield " ".join(unescape(tokens[place + 1].content).split()), int(token.tag[1]), False
            continue
        source = "\n".join(lines[slice(*token.map)]).strip("\n")
        if not (token.type == "html_block" and source.lstrip().startswith("<!--")):
            # In code an entity stays as it is; elsewhere it becomes its character.
            yield source if token.type in _CODE else unescape(source), 0, token.type in _WHOLE


def _section_snippets(headings: dict[int, str], blocks: list[tuple[str, bool]]) -> Iterator[str]:
    path = " > ".join(title for _, title in sorted(headings.items()) if title)[-HEADING_PATH_LENGTH:]
    room = SNIPPET_LENGTH - len(path) - 1
    section = "\n\n".join(source for source, _ in blocks)
    if len(section) <= room:
        parts = [section] if section or path else []
    else:
        parts = []
        prose: list[str] = []
        for source, whole in [*blocks, ("", True)]:
            if not whole:
                prose.append(source)
                continue
            parts += split_snippets("\n\n".join(prose), room)
            prose = []
            parts += _whole_parts(source, room)
    yield from (f"{path}\n{part}".strip() for part in parts)


def _whole_parts(source: str, room: int) -> list[str]:
    if len(source) <= room:
        return [source] if source else []
    head, rows = "", source
    if source.lstrip().startswith("|") and source.count("\n") > 1:
        first, ruler, rest = source.split("\n", 2)
        if len(first) + len(ruler) + 2 < room // 2:
            head, rows = f"{first}\n{ruler}\n", rest
    return [head + part for part in split_lines(rows, room - len(head))]
