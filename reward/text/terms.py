"""A tenant's words that no rewrite may add or lose: groups of synonyms and products. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from reward.text.fold import fold_without_spaces
from reward.text.mentions import mentions

_AGES = re.compile(r"(\d+)-(\d+)(岁|个月)")
# Between the letters of a word that is spread out to be overlooked; list separators and blanks may end a word as well.
_SEPARATORS = " \n、,;|/"


class Contradiction(ValueError):
    """Two groups claim one term."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term found in a text: `text[start:end]`, and the group that it belongs to.

    Args:
        is_hint: it may mean the group and need not: an age, or a word written with a tilde (公司~). What it hints
            at is known; it is never asked for.
    """

    group: str
    start: int
    end: int
    is_product: bool
    is_hint: bool = False


Entry = tuple[str, str, bool, bool]  # term, group, is_product, is_hint


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Terms by their first character, longest first, and the age ranges that name a group (3-17岁 names 儿童)."""

    terms: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    ages: Sequence[tuple[int, int, str, str]] = ()
    shortest: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, protected_groups: Mapping[str, Sequence[str]], products: Mapping[str, Sequence[str]] | None = None
    ) -> Lexicon:
        """The lexicon of a tenant's groups and products; the name of a group is one of its terms.

        Args:
            protected_groups: name -> synonyms; a synonym such as 3-17岁 or 1-36个月 stands for every age between.
            products: name -> other names.

        Raises:
            Contradiction: one term is in two groups (names both).
        """
        owner: dict[str, tuple[str, bool, bool]] = {}
        ages: list[tuple[int, int, str, str]] = []
        for is_product, groups in ((False, protected_groups), (True, products or {})):
            for group, synonyms in groups.items():
                for term in (group, *synonyms):
                    folded, is_hint = fold_without_spaces(term.rstrip("~")), term.endswith("~")
                    if span := _AGES.fullmatch(folded):
                        ages.append((int(span[1]), int(span[2]), span[3], group))
                    elif folded and owner.setdefault(folded, (group, is_product, is_hint))[0] != group:
                        raise Contradiction(f"{term!r} is in two groups: {owner[folded][0]} and {group}")
        terms: dict[str, list[Entry]] = {}
        shortest: dict[str, int] = {}
        for term, (group, is_product, is_hint) in sorted(owner.items(), key=lambda item: -len(item[0])):
            terms.setdefault(term[0], []).append((term, group, is_product, is_hint))
            shortest[group] = len(term)
        return cls({first: tuple(some) for first, some in terms.items()}, tuple(ages), shortest)

    def words(self) -> list[str]:
        """All terms, folded."""
        return [term for some in self.terms.values() for term, *_ in some]

    def find(self, text: str) -> tuple[Term, ...]:
        """The terms of a folded text, longest first at each place, those spread out (孕、妇) among them."""
        return _found(self, text) if self.terms or self.ages else ()


NO_TERMS = Lexicon()


@lru_cache(maxsize=4096)
def _found(lexicon: Lexicon, text: str) -> tuple[Term, ...]:
    terms = list(_literal(lexicon, text))
    places = [place for place, character in enumerate(text) if character.isalnum()]
    if len(places) < len(text):
        letters = "".join([text[place] for place in places])
        taken = {place for term in terms for place in range(term.start, term.end)}
        for term in _literal(lexicon, letters):
            start, end = places[term.start], places[term.end - 1] + 1
            is_spread = end - start > term.end - term.start and _is_spread(text, start, end)
            if is_spread and taken.isdisjoint(range(start, end)):
                terms.append(Term(term.group, start, end, term.is_product, term.is_hint))
    for mention in mentions(text) if lexicon.ages else ():
        for low, high, unit, group in lexicon.ages:
            dimension = "age" if unit == "岁" else "month"
            if any(end.unit == dimension and _within(dict(end.keys)[dimension], low, high) for end in mention.ends):
                terms.append(Term(group, mention.start, mention.end, is_product=False, is_hint=True))
    return tuple(terms)


def _literal(lexicon: Lexicon, text: str) -> Iterable[Term]:
    position, by_first = 0, lexicon.terms
    while position < len(text):
        for term, group, is_product, is_hint in by_first.get(text[position], ()):
            if text.startswith(term, position) and _is_whole(text, position, position + len(term)):
                yield Term(group, position, position + len(term), is_product, is_hint)
                position += len(term) - 1
                break
        position += 1


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether a Latin term begins and ends where its word does."""
    return not (_continues(text[start - 1 : start], text[start]) or _continues(text[end - 1], text[end : end + 1]))


def _continues(one: str, other: str) -> bool:
    """Whether two characters belong to one word: two Latin letters, or two digits."""
    if not (one.isascii() and other.isascii()):
        return False
    return (one.isalpha() and other.isalpha()) or (one.isdigit() and other.isdigit())


def _is_spread(text: str, start: int, end: int) -> bool:
    """Whether one word is spread out here, rather than one word's end meeting another one's beginning (大小 孩童)."""
    if any(not c.isalnum() and c not in _SEPARATORS for c in text[start:end]):
        return True
    return not (text[start - 1 : start].isalnum() and text[end : end + 1].isalnum()) and "\n" not in text[start:end]


def _within(value: object, low: int, high: int) -> bool:
    return isinstance(value, int | float) and low <= value <= high
