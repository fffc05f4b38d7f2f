"""Text cut into snippets that are short enough to be one vector each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise

SNIPPET_LENGTH = 300  # characters
OVERLAP = 50  # characters at most that a snippet repeats of the one before

# No "1." of a numbered list and no "3.5": a full stop ends a sentence after a letter and before a space.
_SENTENCE_END = re.compile(r"[。！？!?；;…]+[”’」』）)】\"']*|(?<=[^\W\d_])\.[”’)\"']*(?=\s|$)|\n")
_CLAUSE_END = re.compile(r"[，、：,:](?!\d)|\s")
_JOINER = "\u200d"


def split_snippets(text: str, limit: int = SNIPPET_LENGTH) -> list[str]:
    """Cut snippets of at most `limit` characters at sentence and line ends.

    Each begins with the last sentences of the one before, as many as `OVERLAP` holds, or with its last clauses where a
    sentence is longer. A sentence longer than `limit` is cut after a comma or space, or else between two characters.
    """
    return _pack((part for sentence in _sentences(text) for part in _cut(sentence, limit)), limit, overlap=True)


def split_lines(text: str, limit: int = SNIPPET_LENGTH) -> list[str]:
    """Cut snippets of whole lines, such as a table's rows, without overlap; a line longer than `limit` is cut."""
    return _pack((part for line in text.splitlines(True) for part in _cut(line, limit)), limit, overlap=False)


def _sentences(text: str) -> Iterator[str]:
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    for start, end in pairwise([0, *ends, len(text)]):
        yield text[start:end]


def _cut(sentence: str, limit: int) -> Iterator[str]:
    start = 0
    while len(sentence) - start > limit:
        clauses = [match.end() for match in _CLAUSE_END.finditer(sentence, start + limit // 2, start + limit)]
        end = clauses[-1] if clauses else _between_characters(sentence, start, start + limit)
        yield sentence[start:end]
        start = end
    yield sentence[start:]


def _between_characters(text: str, start: int, at: int) -> int:
    """Return the last place in (start, at] that parts no accent, emoji sequence or flag; `at` where there is none."""
    place = at
    while place > start and _belongs_to_the_one_before(text, start, place):
        place -= 1
    return place if place > start else at


def _belongs_to_the_one_before(text: str, start: int, at: int) -> bool:
    character, before = text[at], text[at - 1]
    if unicodedata.category(character).startswith("M") or _JOINER in (character, before):
        return True
    if _is_flag_letter(character):  # flags are pairs
        letters = at
        while letters > start and _is_flag_letter(text[letters - 1]):
            letters -= 1
        return (at - letters) % 2 == 1
    return "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _pack(parts: Iterable[str], limit: int, overlap: bool) -> list[str]:
    snippets: list[str] = []
    current = ""
    for part in parts:
        if len(current) + len(part) > limit:
            if current.strip():
                snippets.append(current.strip())
            tail = _tail(current) if overlap else ""
            current = tail if len(tail) + len(part) <= limit else ""
        current += part
    if current.strip():
        snippets.append(current.strip())
    return snippets


def _tail(snippet: str) -> str:
    """Return the last sentences, or else clauses, of at most `OVERLAP` characters; "" where there is no end to begin
    after."""
    first, last = max(0, len(snippet) - OVERLAP), len(snippet.rstrip())
    for ends in (_SENTENCE_END, _CLAUSE_END):
        for match in ends.finditer(snippet, max(0, first - 1)):
            if first <= match.end() < last:
                return snippet[match.end() :]
    return ""
