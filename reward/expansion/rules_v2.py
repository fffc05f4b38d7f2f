"""Preset `rules-v2`: the product of factors in [0, 1], so that no strength pays for a lack.

    form      a lex and a vec line, at most three of each and one hyde, its length, lex shorter than vec, no thinking;
              lines of words that a reader sees, one in each
    kept      the query's key terms: how many of them lex and vec hold, and how many lines hold one; entities
    focused   no new word is in more lines than the query's terms are on average
    specific  new words beyond the query that are not generic: an echo and boilerplate have none
    coherent  new words that more than one line has: lines of one matter share some
    readable  vec and hyde read as language: function words in their place, no salad
    varied    words do not repeat, lines differ
    own       no passage is recited

Template leakage, a line without a kind, too many or too long lines, another language than the query's, and words to a
judge score 0. A query that ends in `/only:lex` (or vec, hyde) asks for that kind alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import Stemmer

from reward.expansion.gates import SHOWN, find_gate
from reward.expansion.language import entities, key_terms, word_lists, words
from reward.expansion.parser import Expansion
from reward.expansion.rule_score import RuleScore
from reward.expansion.rules_v1 import is_diverse
from reward.records.expansion import KINDS, Line
from reward.settings.recipe import Language
from reward.text.units import copied_run

MOST = {"lex": 3, "vec": 3, "hyde": 1}
HYDE_LENGTH = {"en": (50, 450), "zh": (20, 220)}  # characters
ENOUGH_TERMS = 0.6  # share of the query's key terms
ENOUGH_LINES = 0.6  # share of the lines with a key term
ENOUGH_MEAN = {"en": 0.4, "zh": 0.25}  # mean share of the key terms that a line holds
FREE_FOREIGN, WORST_FOREIGN = {"en": 0.1, "zh": 0.25}, {"en": 0.4, "zh": 0.55}  # share of the lines
ENOUGH_NEW = 6  # specific new words
ENOUGH_SHARED = 0.1  # share of the new words that two lines have
ENOUGH_FRESH = 0.6  # share of a line's content words that are no repetition
FREE_ODD, WORST_ODD = 0.1, 0.4  # share of the pairs of function words
FREE_RECITAL = 8  # units

_ONLY = re.compile(r"\s+(?:/only:|only:\s*)(lex|vec|hyde)\s*$", re.IGNORECASE)
_PREFIX = re.compile(r"(?<![\w-])(?:lex|vec|hyde)\s*[:：]", re.IGNORECASE)
_LETTER = re.compile(r"\w")
# Zero-width characters, soft hyphens, marks of direction, controls; an emoji's joiner is none.
_HIDDEN = re.compile("[\x00-\x08\x0e-\x1f\x7f\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_STEMMER = Stemmer.Stemmer("english")
_BREAK = re.compile(r"(?<=[a-z]{3})[.?!] (?=[a-z])")


@dataclass(frozen=True, slots=True)
class _Read:
    """A line with its words, in order, and the stems of its content words.

    Args:
        joined: whether no punctuation is between a word and the next one.
    """

    line: Line
    words: tuple[str, ...]
    content: tuple[str, ...]
    joined: tuple[bool, ...]


def score_v2(query: str, expansion: Expansion, language: Language, passages: Sequence[str] = ()) -> RuleScore:
    """Score an expansion as the module says.

    Args:
        passages: what was retrieved with it, where that is known: none may be recited.
    """
    only = _ONLY.search(query)
    asked = query[: only.start()] if only else query
    wanted = (only[1].lower(),) if only else ("lex", "vec")
    if found := find_gate(asked, expansion, language):
        reason, why = found
        return RuleScore(0.0, deductions=(f"{why}: score 0",), gate=reason)
    lost: list[str] = []
    read = [_Read(line, *_words_of(line.text, language)) for line in expansion.lines]
    terms = frozenset(_stems(key_terms(asked, language) - word_lists(language).function, language))
    new, held = _new_words(read, terms, language), _held(read, terms, language)
    parts = {
        "form": _form(asked, expansion, wanted, language, lost),
        "kept": _kept(asked, read, terms, held, language, lost),
        "focused": _focused(held, new, language, lost),
        "specific": _specific(read, new, language, lost),
        "coherent": _coherent(len(read), new, lost),
        "readable": _readable(read, language, lost),
        "varied": _varied(read, language, lost),
        "own": _own(asked, expansion, passages, lost),
    }
    total = 1.0
    for factor in parts.values():
        total *= factor
    return RuleScore(total, parts, tuple(lost))


def _form(query: str, expansion: Expansion, wanted: Sequence[str], language: Language, lost: list[str]) -> float:
    factor = 1.0

    def lose(share: float, why: str) -> None:
        nonlocal factor
        factor *= 1 - share
        lost.append(f"form -{share:.0%}: {why}")

    counts = Counter(line.kind for line in expansion.lines)
    for kind in KINDS:
        if kind in wanted and not counts[kind]:
            lose(0.5, f"no {kind} line")
        if counts[kind] > MOST[kind]:
            lose(0.2, f"{counts[kind]} {kind} lines, at most {MOST[kind]}")
    if len(wanted) == 1 and len(counts) > 1:
        lose(0.5, f"more than the {wanted[0]} lines asked for")
    least, most = HYDE_LENGTH[language]
    for text in expansion.of("hyde")[:1]:
        if not least <= len(text) <= most:
            lose(0.15, f"hyde of {len(text)} characters, {least} to {most}")
    lex, vec = expansion.of("lex"), expansion.of("vec")
    if lex and vec and sum(map(len, lex)) / len(lex) >= sum(map(len, vec)) / len(vec):
        lose(0.15, "lex is not shorter than vec")
    for line in expansion.lines:
        if _PREFIX.search(line.text):
            lose(0.3, f"a line holds another one: {line.text[:SHOWN]!r}")
        if not _LETTER.search(line.text):
            lose(0.3, f"a line without a word: {line.text[:SHOWN]!r}")
        if hidden := set(_HIDDEN.findall(line.text)) - set(query):
            lose(0.3, f"a line holds a character that nobody sees: U+{ord(min(hidden)):04X}")
    if expansion.invalid:
        lose(0.2, f"{len(expansion.invalid)} lines without text")
    if expansion.thought:
        lose(0.2, "holds thinking")
    return factor


def _held(read: Sequence[_Read], terms: frozenset[str], language: Language) -> list[float]:
    """Return which share of the query's terms each line holds; nothing where the query has none."""
    if not terms:
        return []
    shares = []
    for one in read:
        said = set(one.content)
        shares.append(sum(_is_said(term, said, [one], language) for term in terms) / len(terms))
    return shares


def _kept(
    query: str,
    read: Sequence[_Read],
    terms: frozenset[str],
    held: Sequence[float],
    language: Language,
    lost: list[str],
) -> float:
    if not terms:
        return 1.0
    searched = [one for one in read if one.line.kind != "hyde"] or read
    said = {word for one in searched for word in one.content}
    missing = [term for term in sorted(terms) if not _is_said(term, said, searched, language)]
    coverage = 1 - len(missing) / len(terms)
    lines = sum(share > 0 for share in held) / len(held)
    mean = sum(held) / len(held)
    factor = (
        min(1.0, coverage / ENOUGH_TERMS) ** 2 * min(1.0, lines / ENOUGH_LINES) * min(1.0, mean / ENOUGH_MEAN[language])
    )
    if factor < 1:
        lost.append(f"kept {factor:.2f}: a line holds {mean:.0%} of the key terms; missing {', '.join(missing)}")
    text = " ".join(one.line.text for one in read).lower()
    named = sorted(entities(query, language) - word_lists(language).function)
    if dropped := [name for name in named if _bare(name) not in text]:
        factor *= 0.5 if len(dropped) == len(named) else 0.8
        lost.append(f"kept: entities dropped: {', '.join(dropped)}")
    return factor


def _focused(held: Sequence[float], new: Counter[str], language: Language, lost: list[str]) -> float:
    """Lines about something else repeat its words more than the query's, even where each names a term of the query."""
    if not new or len(held) < 3:
        return 1.0
    word, times = max(new.items(), key=lambda item: (item[1], item[0]))
    excess = (times - sum(held)) / len(held) - FREE_FOREIGN[language]
    factor = max(0.1, 1 - max(0.0, excess) / (WORST_FOREIGN[language] - FREE_FOREIGN[language]))
    if factor < 1:
        lost.append(f"focused {factor:.2f}: {word!r} is in {times} of {len(held)} lines, more than the query's terms")
    return factor


def _specific(read: Sequence[_Read], new: Counter[str], language: Language, lost: list[str]) -> float:
    specific = new.keys() - _generic(language)
    enough = ENOUGH_NEW if len(read) > 2 else ENOUGH_NEW / 2
    factor = min(1.0, len(specific) / enough) * min(1.0, 2 * len(specific) / len(new)) if new else 0.0
    # Each kind is searched with on its own.
    for kind in ("lex", "vec"):
        own = [one for one in read if one.line.kind == kind]
        if own and not any(word in specific for one in own for word in one.content):
            factor *= 0.6
            lost.append(f"specific: the {kind} lines add nothing to the query")
    if factor < 1:
        lost.append(f"specific {factor:.2f}: {len(specific)} new words that are not generic, of {len(new)}")
    return factor


def _coherent(lines: int, new: Counter[str], lost: list[str]) -> float:
    if lines < 3:
        return 1.0
    shared = sum(times > 1 for times in new.values()) / len(new) if new else 0.0
    factor = 0.5 + 0.5 * min(1.0, shared / ENOUGH_SHARED)
    if factor < 1:
        lost.append(f"coherent {factor:.2f}: {shared:.0%} of the new words are in two lines")
    return factor


def _readable(read: Sequence[_Read], language: Language, lost: list[str]) -> float:
    """Salad: function words that do not follow one another in published text, and sentences without any."""
    lists = word_lists(language)
    function = lists.function | lists.stop if language == "en" else lists.function
    factor, odd, pairs = 1.0, 0, 0
    for one in read:
        if one.line.kind == "lex" or len(one.words) < 2:
            continue
        tied = [word in function for word in one.words]
        for place, (first, second) in enumerate(pairwise(one.words)):
            if tied[place] and tied[place + 1] and one.joined[place]:
                pairs += 1
                odd += (first, second) not in lists.pairs
        # A sentence that goes on in lower case, a line that breaks off.
        breaks = len(_BREAK.findall(one.line.text)) + (one.words[-1] in lists.unfinished)
        odd, pairs = odd + breaks, pairs + breaks
        share = sum(tied) / len(tied)
        if share > 0.75 or (share == 0 and len(one.words) > 5):
            factor *= 0.8 if one.line.kind == "vec" else 0.4
            lost.append(f"readable: {share:.0%} function words: {one.line.text[:SHOWN]!r}")
    if odd:
        clear = 1 - min(1.0, max(0.0, odd / (pairs + 3) - FREE_ODD) / (WORST_ODD - FREE_ODD))
        factor *= max(0.1, clear)
        lost.append(f"readable {clear:.2f}: {odd} of {pairs} pairs of function words are none of the language")
    return factor


def _varied(read: Sequence[_Read], language: Language, lost: list[str]) -> float:
    factor = 1.0
    for one in read:
        fresh = len(set(one.content)) / len(one.content) if one.content else 1.0
        if fresh < ENOUGH_FRESH and len(one.content) > 2:
            factor *= max(0.1, (fresh / ENOUGH_FRESH) ** 2)
            lost.append(f"varied: {1 - fresh:.0%} of the words are repetitions: {one.line.text[:SHOWN]!r}")
        longest = 10 if language == "en" else 12
        if one.line.kind == "lex" and len(one.words) > longest:
            factor *= 0.6
            lost.append(f"varied: a lex line of {len(one.words)} words, at most {longest}")
    for kind in ("lex", "vec"):
        texts = [one.line.text for one in read if one.line.kind == kind]
        alike = sum(not is_diverse(a, b, 2, language) for n, a in enumerate(texts) for b in texts[n + 1 :])
        if alike:
            factor *= 0.7 ** min(alike, 3)
            lost.append(f"varied: {alike} pairs of {kind} lines alike")
    return factor


def _own(query: str, expansion: Expansion, passages: Sequence[str], lost: list[str]) -> float:
    if not passages:
        return 1.0
    recited = max((copied_run(line.text, passages, query) for line in expansion.lines), default=0)
    if recited <= FREE_RECITAL:
        return 1.0
    lost.append(f"own: recites {recited} units of a passage")
    return max(0.1, 1 - 0.1 * (recited - FREE_RECITAL))


@lru_cache(maxsize=8192)
def _words_of(text: str, language: Language) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]:
    """Return the fields of `_Read` beside the line."""
    lists = word_lists(language)
    said = words(text, language)
    content = [word for word in said if word not in lists.function and word not in lists.stop]
    return said, tuple(_stems(content, language)), _joined(text, said)


def _joined(text: str, said: Sequence[str]) -> tuple[bool, ...]:
    """Whether no more than blanks are between each word and the next."""
    lower, at, joined = text.lower(), 0, []
    for word in said:
        start = lower.find(word, at)
        joined.append(not lower[at:start].strip())
        at = start + len(word)
    return tuple(joined[1:])


def _stems(content: Sequence[str] | frozenset[str], language: Language) -> list[str]:
    if language == "zh":
        return list(content)
    return list(_STEMMER.stemWords([_bare(word) if word[-1:] == "s" else word for word in content]))


def _bare(word: str) -> str:
    """Return a word without its possessive ending."""
    return word.removesuffix("'s").removesuffix("’s")


@lru_cache
def _generic(language: Language) -> frozenset[str]:
    return frozenset(_stems(word_lists(language).generic, language))


def _new_words(read: Sequence[_Read], terms: frozenset[str], language: Language) -> Counter[str]:
    """Count in how many lines each content word is that the query has in no form."""
    counts = Counter(word for one in read for word in set(one.content))
    begins = tuple(term for term in terms if len(term) > 3)
    for word in list(counts):
        if language == "zh":
            known = any(word in term for term in terms)
        else:
            known = len(word) > 3 and (word.startswith(begins) or any(term.startswith(word) for term in begins))
        if known or word in terms:
            del counts[word]
    return counts


def _is_said(term: str, said: set[str], read: Sequence[_Read], language: Language) -> bool:
    if term in said:
        return True
    if language == "zh":
        return any(term in one.line.text.lower() for one in read)
    return len(term) > 2 and any(word.startswith(term) or (len(word) > 3 and term.startswith(word)) for word in said)
