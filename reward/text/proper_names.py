"""The proper names of an English question, and whether a rewrite keeps them. Pure.

A name is told by its capital letter within a sentence: a question in lower case or in capitals throughout shows none,
and neither does the first word of a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from reward.text.fold import fold

_WORD = re.compile(r"[^\W\d_]+(?:['’.&-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.?!:;])\s+|[\"“”«»()\[\]]\s*|\n")
_POSSESSIVE = re.compile(r"['’]s?$|['’]s(?=-)")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Capitals that name nobody: pronouns, and titles, which a rewrite may leave out or spell otherwise.
_NO_NAME = frozenset(
    """
    i i'm i've i'd i'll he she it they we you this that ok mr mrs ms miss dr sir lord lady dame king
    queen prince princess president senator governor mayor pope saint st captain general colonel
    professor prof judge chairman coach
    """.split()  # noqa: SIM905
)
HEADLINE = 0.6  # a text with a larger share of capitalised words is set like a headline
SAME_SPELLING = 0.85  # Thompon is Thompson; Jackson is not Johnson
LONGEST = 40  # letters of a word that is looked at for misspellings
MOST = 16  # names of a text that are looked into


@lru_cache(maxsize=2048)
def proper_names(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the names in a text as it was written, each as its words, without possessive endings.

    Words in capitals that follow one another are one name (Kurt Gödel). A text with Chinese, Japanese or Korean
    characters shows none.
    """
    if _CJK.search(text):
        return ()
    names: list[tuple[str, ...]] = []
    for sentence in _SENTENCE_END.split(text):
        words = list(_WORD.finditer(sentence))
        if sum(word.group()[0].isupper() for word in words) > max(1.0, HEADLINE * len(words)):
            continue
        end = -1
        for word in words[1:]:
            plain = _plain(word.group())
            if not word.group()[0].isupper() or len(plain) < 2 or _spelling(plain) in _NO_NAME:
                continue
            if names and word.start() == end + 1:
                names[-1] += (plain,)
            else:
                names.append((plain,))
            # Anna's Bob: two names.
            end = word.end() if plain == word.group() else -1
    return tuple(names[:MOST])


def names_lost(names: Sequence[tuple[str, ...]], rewrite: str) -> list[str]:
    """Return the names that a rewrite lacks.

    More than half of a name's words are enough (New York for New York City). A word may be misspelled on one side, and
    an acronym may be written out: SNL is Saturday Night Live, TV is television.
    """
    if not names:
        return []
    said = [_spelling(_plain(word)) for word in _WORD.findall(rewrite)]
    parts = {part for word in said for part in (word, *re.split("['’.&-]", word))}
    initials = "".join(word[0] for word in said)
    return [
        " ".join(name)
        for name in names
        if 2 * sum(_is_said(word, said, parts, initials) for word in name) <= len(name)
        and not _is_acronym_of(name, parts)
    ]


def _is_said(word: str, said: Sequence[str], parts: set[str], initials: str) -> bool:
    wanted = _spelling(word)
    if wanted in parts or wanted.replace(".", "") in parts:
        return True
    letters = _spelling(word.removesuffix("s")).replace(".", "")
    if (
        word.removesuffix("s").isupper()
        and 2 <= len(letters) <= 6
        and (letters in initials or any(_abbreviates(letters, w) for w in said))
    ):
        return True
    return 3 < len(wanted) <= LONGEST and any(
        abs(len(other) - len(wanted)) <= 2 and SequenceMatcher(None, wanted, other).ratio() >= SAME_SPELLING
        for other in parts
    )


def _abbreviates(letters: str, word: str) -> bool:
    """Whether the letters occur in the word in their order, from its first one on: tv, television."""
    rest = iter(word)
    return word[:1] == letters[:1] and len(word) > len(letters) and all(letter in rest for letter in letters)


def _is_acronym_of(name: tuple[str, ...], parts: set[str]) -> bool:
    """Whether the rewrite has the initials of a longer name: US for United States."""
    return len(name) > 1 and "".join(_spelling(word)[0] for word in name) in parts


def _plain(word: str) -> str:
    return _POSSESSIVE.sub("", word)


def _spelling(word: str) -> str:
    """Return a word without case and accents: Gödel is godel."""
    return "".join(c for c in unicodedata.normalize("NFD", fold(word)) if unicodedata.category(c) != "Mn")
