"""The words of a text, and texts made of some of them. Pure."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jieba

jieba.setLogLevel(logging.WARNING)

_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]+")
# A stretch of Han, or a run of anything else without blanks that holds a letter or digit; hyphens stay inside.
_STRETCH = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]+|(?:(?![\u3400-\u9fff\U00020000-\U0003ffff])[\w'’.\-])+")
_LONGEST = 256  # characters of one stretch: jieba takes quadratic time for what its dictionary does not know
# A word in more than this share of the texts, and in more than so many, says little of any one of them.
COMMON_SHARE, COMMON_TEXTS = 0.1, 5


class Word(NamedTuple):
    """A word and its place in the text that it is from."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Return the words in order: jieba's of Chinese text, runs of letters and digits of any other."""
    words = []
    for match in _STRETCH.finditer(text):
        if not _HAN.match(match[0]):
            run = match[0].strip("'’.-_")
            if any(c.isalnum() for c in run):
                start = match.start() + match[0].index(run)
                words.append(Word(run, start, start + len(run)))
            continue
        for begin in range(match.start(), match.end(), _LONGEST):
            place = begin
            for piece in jieba.cut(text[begin : min(begin + _LONGEST, match.end())]):
                words.append(Word(piece, place, place + len(piece)))
                place += len(piece)
    return words


def join_words(text: str, words: Sequence[Word], kept: Iterable[int]) -> str:
    """Return the kept words in their order: neighbours as they stand in the text, a blank where one was left out."""
    parts: list[str] = []
    last = -2
    for place in sorted(kept):
        word = words[place]
        if parts:
            parts.append(text[words[last].end : word.start] if place == last + 1 else " ")
        parts.append(word.text)
        last = place
    return "".join(parts)


class Frequencies:
    """In how many of the texts a word occurs."""

    def __init__(self, texts: Iterable[str]):
        self._counts: Counter[str] = Counter()
        self._texts = 0
        for text in texts:
            self._texts += 1
            self._counts.update({word.text.casefold() for word in words_of(text)})

    def is_common(self, word: str) -> bool:
        """Say whether more than `COMMON_SHARE` of the texts, and more than `COMMON_TEXTS`, hold the word."""
        return self._counts[word.casefold()] > max(COMMON_TEXTS, COMMON_SHARE * self._texts)

    def weight(self, word: str) -> float:
        """Return the word's inverse document frequency, ln((1 + N) / (1 + n))."""
        return math.log((1 + self._texts) / (1 + self._counts[word.casefold()]))


def context_words(query: str, context: str, frequencies: Frequencies, most: int) -> list[str]:
    """Return the words of the context that the query lacks, those of the highest tf·idf first, `most` at most."""
    known = {word.text.casefold() for word in words_of(query)}
    counts: Counter[str] = Counter()
    spelt: dict[str, str] = {}
    for word in words_of(context):
        folded = word.text.casefold()
        if folded not in known:
            counts[folded] += 1
            spelt.setdefault(folded, word.text)
    ranked = sorted(counts, key=lambda folded: -counts[folded] * frequencies.weight(folded))
    return [spelt[folded] for folded in ranked[:most] if frequencies.weight(folded) > 0]
