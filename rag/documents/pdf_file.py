"""A PDF with text → snippets, its lines joined to paragraphs over line and page breaks."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pypdfium2 as pdfium

from rag.documents.garbled_text import unreadable
from rag.documents.records import IngestError
from rag.documents.snippets import split_snippets

MOST_PAGES = 10_000
LARGEST_TEXT = 20_000_000  # characters
_EDGE_LINES = 2  # at the top and at the bottom of a page, where headers and footers are
_REPEATED_ON = 0.4  # of the pages: left and right pages may have headers of their own
_FULL = 0.75  # of the usual width of a line: a shorter one ends its paragraph
_DIGITS = re.compile(r"\d+")
_NUMBER = "[一二三四五六七八九十]+"
_BULLET = re.compile(rf"[•●■◆▪·*–—○□-]|\d+[.、)）]|[（(]?{_NUMBER}[、)）]|第(\d+|{_NUMBER})[章节条]")
_SENTENCE_ENDS = "。！？!?；;…：:.”」』"
_HYPHEN = "\ufffe"  # PDFium's sign for one that only the end of a line called for; it leaves the line's end out
_DOT_LEADERS = re.compile(r"(?:[.·…]\s?){4,}")  # of a table of contents
# Fonts often name a character by its look-alike among the radicals; NFKC has the one that people type.
_LOOK_ALIKE = re.compile("[\u2e80-\u2fdf\uf900-\ufaff]")


def pdf_snippets(path: Path, name: str) -> list[str]:
    """
    Raises:
        IngestError: no readable PDF, encrypted, without text (a scan), or of absurd size.
    """
    text = _join_lines([line for page in _drop_repeated(_pages(path, name)) for line in page])
    if not text:
        raise IngestError(f"{name}: holds no text: a scan? Recognise its text (OCR) first")
    if problem := unreadable(text):
        raise IngestError(f"{name}: its text layer is {problem}: recognise its text (OCR) first, as of a scan")
    return split_snippets(text)


def _pages(path: Path, name: str) -> list[list[str]]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium.raw.FPDF_ERR_PASSWORD:
            raise IngestError(f"{name}: encrypted: save it without a password") from None
        raise IngestError(f"{name}: no readable PDF: damaged") from None
    if len(document) > MOST_PAGES:
        raise IngestError(f"{name}: says it has {len(document)} pages, of at most {MOST_PAGES}: split it")
    pages: list[list[str]] = []
    length = 0
    for number in range(len(document)):
        try:
            page = document[number]
            text_page = page.get_textpage()
        except pdfium.PdfiumError:
            raise IngestError(f"{name}: page {number + 1} cannot be read: damaged") from None
        length += text_page.count_chars()
        if length > LARGEST_TEXT:
            raise IngestError(f"{name}: holds more text than one document may: split it")
        pages.append(_lines(text_page.get_text_range()))
        text_page.close()
        page.close()
    return pages


def _lines(text: str) -> list[str]:
    text = _LOOK_ALIKE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text.replace(_HYPHEN, f"{_HYPHEN}\n"))
    lines = (_DOT_LEADERS.sub(" ", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _drop_repeated(pages: list[list[str]]) -> list[list[str]]:
    """Drop lines at the edges of pages that many pages repeat; numbers in them do not count."""
    if len(pages) < 3:
        return pages
    counts: Counter[str] = Counter()
    for page in pages:
        counts.update({_DIGITS.sub("#", line) for line in page[:_EDGE_LINES] + page[-_EDGE_LINES:]})
    enough = max(2, _REPEATED_ON * len(pages))
    return [
        [
            line
            for place, line in enumerate(page)
            if _EDGE_LINES <= place < len(page) - _EDGE_LINES or counts[_DIGITS.sub("#", line)] < enough
        ]
        for page in pages
    ]


def _join_lines(lines: list[str]) -> str:
    widths = sorted(_width(line) for line in lines)
    full = _FULL * widths[len(widths) * 9 // 10] if widths else 0
    pieces: list[str] = []
    for line, following in pairwise([*lines, ""]):
        pieces.append(line.removesuffix(_HYPHEN))
        if line.endswith(_HYPHEN):
            continue
        if line[-1] in _SENTENCE_ENDS or _width(line) < full or _BULLET.match(following):
            pieces.append("\n")
        elif following and line[-1].isascii() and following[0].isascii():
            pieces.append(" ")
    return "".join(pieces).strip()


def _width(line: str) -> int:
    """Measure in Latin characters; a Chinese one takes two places."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)
