"""An answer as a text: length, repetition, stuffing, copies, refusals, words to the scorer. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from reward.medical.lexicons import Lexicons
from reward.medical.reading import read
from reward.settings.medical import AnswerLengthSettings
from reward.text.units import new_content, units

_GRAM = 6  # units in a row: what is said twice with that many is a repetition
_FREE_REPETITION = 0.15
_ITEM = re.compile(r"[、,，/|;；\s。.!！]+")
_SHORT_ITEM = 7  # characters
_LONGEST_LIST = 8  # items: careful answers list that many signs
_LIST = re.compile(
    rf"(?:[^、/|;；\s。,，!！?？]{{1,{_SHORT_ITEM}}}[、/|;；\s]+){{{_LONGEST_LIST},}}[^、/|;；\s。,，!！?？]{{1,{_SHORT_ITEM}}}"
)
# English has a blank between any two words: what joins words into a sentence is no item of a list.
_JOINS = re.compile(
    "(?:the|an?|i|it|you|your|he|she|his|her|him|they|them|their|we|us|my|me|this|that|these|those|there|is|are|was|were"
    "|am|be|been|do|does|did|don't|has|have|had|can|can't|will|won't|would|should|may|might|could|must|not|and|or|but|so"
    "|if|when|while|until|as|than|of|to|in|on|at|by|for|from|with|without|into|over|under|about|after|before|it's|you're)",
    re.IGNORECASE,
)
_SUBSTANCE = 14  # units: an answer with fewer, boilerplate aside, says nothing
_LEAST_SUBSTANCE = 4  # units: of an answer that does not refuse
_COPIED = 0.12


def length_penalty(answer: str, settings: AnswerLengthSettings) -> float:
    """Return 0 up to the target, 1 from the cap on, linear between."""
    excess = len(answer.strip()) - settings.target
    return min(1.0, max(0.0, excess / (settings.cap - settings.target)))


def repetition_penalty(text: str) -> float:
    """Return how much of a text repeats itself, in [0, 1]: the share of 6-grams seen before, beyond a free part."""
    said = units(text)
    grams = [tuple(said[at : at + _GRAM]) for at in range(len(said) - _GRAM + 1)]
    if not grams:
        return 0.0
    repeated = 1 - len(set(grams)) / len(grams)
    return min(1.0, max(0.0, (repeated - _FREE_REPETITION) / (0.6 - _FREE_REPETITION)))


@lru_cache(maxsize=2048)
def listed_share(text: str) -> float:
    """Return the share of a text that stands in lists of more than eight short items: words without a sentence."""
    items = [item for item in _ITEM.split(text) if item.strip()]
    total = sum(map(len, items))
    listed, run = 0, list[str]()
    for item in [*items, "…" * (_SHORT_ITEM + 1)]:
        if len(item) <= _SHORT_ITEM and not _JOINS.fullmatch(item):
            run.append(item)
            continue
        if len(run) > _LONGEST_LIST:
            listed += sum(map(len, run))
        run = []
    return listed / total if total else 0.0


def without_lists(text: str) -> str:
    """Return a text without its lists of more than eight short items: a keyword in one is no advice."""
    return _LIST.sub(lambda match: match.group() if _joined(match.group()) else " ", text)


def _joined(text: str) -> bool:
    """Whether words that look like a list are English sentences: one in eight joins others."""
    words = [item for item in _ITEM.split(text) if item]
    return sum(bool(_JOINS.fullmatch(word)) for word in words) * _LONGEST_LIST >= len(words)


def stuffing_penalty(chain: str, answer: str) -> float:
    """Return the larger share of chain and answer that is lists of keywords."""
    return max(listed_share(chain), listed_share(answer))


def is_copy(answer: str, question: str) -> bool:
    """Whether an answer is the question again: next to nothing in it is new, and it holds most of the question."""
    asked, said = units(question), without_lists(answer)
    if not asked or new_content(said, question) > _COPIED:
        return False
    return len(units(said)) >= 0.5 * len(asked)


@dataclass(frozen=True)
class Substance:
    """`refuses`: the answer declines to help; `units`: what it says beside refusing and boilerplate."""

    refuses: bool
    units: int


@lru_cache(maxsize=2048)
def substance_of(answer: str, lexicons: Lexicons) -> Substance:
    """Return what an answer says beside declining, clause by clause."""
    reading, form = read(without_lists(answer)), lexicons.form
    refusal, boilerplate = lexicons.pattern(form.refusal), lexicons.pattern(form.boilerplate)
    empty = lexicons.pattern(form.empty)
    refuses, left = False, 0
    for start, end in reading.clauses:
        clause = reading.text[start:end]
        if refusal.search(clause):
            refuses = True
            continue
        # A clause that fits any question says nothing, nor does one that is boilerplate for the most part.
        if empty.search(clause.strip()):
            continue
        rest = len(units(boilerplate.sub("", clause)))
        left += rest if rest > len(units(clause)) / 2 else 0
    return Substance(refuses, left)


def says_nothing(answer: str, lexicons: Lexicons) -> bool:
    """Whether an answer is a refusal with nothing else, or boilerplate alone."""
    substance = substance_of(answer, lexicons)
    return substance.units < _SUBSTANCE if substance.refuses else substance.units < _LEAST_SUBSTANCE


def addresses_judge(text: str, question: str, lexicons: Lexicons) -> str:
    """Return words that speak to the scorer of the answer, "" where there are none or the question has them."""
    asked = read(question).text
    for match in lexicons.pattern(lexicons.form.judge_directed).finditer(read(text).text):
        if match.group() not in asked:
            return match.group()
    return ""
