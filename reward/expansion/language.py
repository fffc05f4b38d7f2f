"""What the rules read of a text: its language, words, key terms and entities, by the word lists of a language. Pure."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jieba
import yaml

from reward.settings.recipe import Language

_LISTS = Path(__file__).with_name("words")
_HAN = r"\u3400-\u9fff\U00020000-\U0003ffff"
CJK = re.compile(rf"[{_HAN}]")
_EDGES = ".,!?:;()[]{}\"'“”‘’`、，。！？：；（）《》「」『』【】…"
_PIECES = re.compile(rf"[{_HAN}]+|[^\W{_HAN}]+(?:[.+#@'’-]+[^\W{_HAN}]*)*")
_TECHNICAL = re.compile(r"[.+#@-]")

jieba.setLogLevel(logging.WARNING)


@dataclass(frozen=True)
class WordLists:
    """The word lists of one language (`words/<language>.yaml`), in lower case.

    Args:
        stop: words that are neither entity nor key term.
        repeat: words that a hyde may repeat.
        fillers: phrases that search for nothing.
        function: words that tie a sentence together.
        generic: words that fit any query.
        unfinished: function words that end no line.
        pairs: function words that follow one another in published text, first and second word.
    """

    stop: frozenset[str]
    repeat: frozenset[str]
    fillers: tuple[str, ...]
    function: frozenset[str]
    generic: frozenset[str]
    unfinished: frozenset[str]
    pairs: frozenset[tuple[str, str]]


@lru_cache
def word_lists(language: Language) -> WordLists:
    """Read the word lists of a language, once."""
    lists = yaml.safe_load((_LISTS / f"{language}.yaml").read_text(encoding="utf-8"))
    names = ("stop", "repeat", "function", "generic", "unfinished")
    stop, repeat, function, generic, unfinished = (frozenset(lists[name]) for name in names)
    pairs = _pairs(_LISTS / f"{language}_pairs.txt")
    return WordLists(stop, repeat, tuple(lists["fillers"]), function, generic, unfinished, pairs)


def _pairs(file: Path) -> frozenset[tuple[str, str]]:
    """Read lines of a word, a colon and the words that follow it; a line with # is a comment."""
    rows = (line.split(": ") for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return frozenset((first, second) for first, rest in rows for second in rest.split())


def language_of(text: str) -> Language:
    """Return the language of a text: `zh` where it holds a Chinese character, else `en`."""
    return "zh" if CJK.search(text) else "en"


@lru_cache(maxsize=8192)
def words(text: str, language: Language) -> tuple[str, ...]:
    """Return the words of a text in lower case, in order, without punctuation around them.

    English words stand between blanks. Chinese ones are cut by jieba's dictionary; Latin words among them stay whole.
    """
    if language == "en":
        return tuple(word for raw in text.lower().split() if (word := raw.strip(_EDGES)))
    found: list[str] = []
    for piece in _PIECES.findall(text.lower()):
        found += jieba.cut(piece, HMM=False) if CJK.match(piece) else [piece]
    return tuple(found)


def key_terms(query: str, language: Language) -> frozenset[str]:
    """Return the words of a query that are no stop-words."""
    return frozenset(words(query, language)) - word_lists(language).stop


def holds_any(line: str, terms: frozenset[str], language: Language) -> bool:
    """Whether a line holds one of the terms: as a word in English, as a piece of text in Chinese."""
    if language == "en":
        return not terms.isdisjoint(words(line, language))
    said = line.lower()
    return any(term in said for term in terms)


def entities(query: str, language: Language) -> frozenset[str]:
    """Return the entities of a query in lower case, by their shape (spec of preset rules-v1).

    English: words in capitals with at least two letters; capitalised words after the first that are no stop-words;
    words with one of `.+-#@`; CamelCase; and the word right after an entity unless it is a stop-word. Chinese: Latin
    words and numbers of any shape, and what stands in quotation or title marks.
    """
    return _chinese_entities(query) if language == "zh" else _english_entities(query)


@lru_cache(maxsize=4096)
def _english_entities(query: str) -> frozenset[str]:
    stop = word_lists("en").stop
    found: set[str] = set()
    after_entity = False
    for place, raw in enumerate(query.split()):
        word = raw.strip(_EDGES)
        lower = word.lower()
        is_entity = bool(word) and (
            (word.isupper() and sum(map(str.isalpha, word)) >= 2)
            or (place > 0 and word[0].isupper() and lower not in stop)
            or (len(word) > 1 and bool(_TECHNICAL.search(word)))
            or (word[0].isupper() and any(map(str.isupper, word[1:])))
            or (after_entity and lower not in stop)
        )
        if is_entity:
            found.add(lower)
        after_entity = is_entity
    return frozenset(found)


_LATIN = re.compile(r"[A-Za-z][A-Za-z0-9.+#@-]*|\d+(?:\.\d+)?[A-Za-z]+")
_MARKED = re.compile(r"《([^《》]{1,30})》|“([^“”]{1,30})”|「([^「」]{1,30})」")


@lru_cache(maxsize=4096)
def _chinese_entities(query: str) -> frozenset[str]:
    found = {latin.lower() for latin in _LATIN.findall(query) if len(latin) > 1}
    found |= {part.lower() for parts in _MARKED.findall(query) for part in parts if part}
    return frozenset(found)


def reads_as_language(line: str, language: Language) -> bool:
    """Whether a line is a phrase or sentence rather than a list of keywords: at least four words (Chinese: six
    characters), one of them a function word."""
    function = word_lists(language).function
    said = words(line, language)
    long_enough = len(said) >= 4 if language == "en" else len(line) >= 6
    return long_enough and not function.isdisjoint(said)


def fillers_of(line: str, language: Language) -> list[str]:
    """Return the filler phrases that make up a line: fewer than three characters remain without the phrase."""
    lower = line.lower().strip()
    return [
        phrase
        for phrase in word_lists(language).fillers
        if phrase in lower and len(lower.replace(phrase, "").strip()) < 3
    ]
