"""Preset `rules-v1`: the point table of the public kit, with a Chinese counterpart of every word list.

    part       points     rule
    format     0 to 30    a lex line 10, a vec line 10, every line valid 10 (5 less for each that is not)
    diversity  0 to 30    two kinds 10, two lines 5, lex lines diverse 5 (2 less a pair), vec likewise 5,
                          no echo of the query 5 (5 less for each)
    hyde       0 to 20    present 5, 50 to 200 characters 5 (3 less when shorter, 5 when longer), one line 5,
                          no word three times 5 (2 less a word)
    quality    0 to 20    base 5, key terms kept 5, lex shorter than vec 5, vec reads as language 5
    entity     -45 to 20  every lex line with an entity 15, some 5, none -30; 15 less a filler; an entity in vec 5
    think      0 to 20    no thinking

The score is the sum over 120, or over 140 with a hyde, clipped to [0, 1]. Template leakage or a line without a kind
scores 0.

What the table leaves open is settled so: a query without entities has 10 points for them; lex keeps the key terms where
each of its lines holds one, and a query without key terms loses none; lex not shorter than vec, and vec that is only
keywords, cost 2 of the 5 points; the mean length counts. A kind without text is the invalid line that costs 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from reward.expansion.gates import SHOWN
from reward.expansion.language import entities, fillers_of, holds_any, key_terms, reads_as_language, word_lists, words
from reward.expansion.parser import Expansion
from reward.expansion.rule_score import RuleScore
from reward.records.outcome import GateReason
from reward.settings.recipe import Language

COMPARED = 50  # lines of a kind that are compared with one another


def score_v1(query: str, expansion: Expansion, language: Language) -> RuleScore:
    """Score an expansion by the table above."""
    if expansion.leaked:
        return RuleScore(0.0, deductions=("template leakage: score 0",), gate=GateReason.TEMPLATE_LEAK)
    if expansion.unknown:
        found = f"line without a kind: {expansion.unknown[0][:SHOWN]!r}: score 0"
        return RuleScore(0.0, deductions=(found,), gate=GateReason.UNPARSEABLE)
    if not expansion.lines:
        return RuleScore(0.0, deductions=("no line: score 0",), gate=GateReason.EMPTY)
    lost: list[str] = []
    parts = {
        "format": _format(expansion, lost),
        "diversity": _diversity(query, expansion, language, lost),
        "hyde": _hyde(expansion, language, lost),
        "quality": _quality(query, expansion, language, lost),
        "entity": _entity(query, expansion, language, lost),
        "think": 0.0 if expansion.thought else 20.0,
    }
    if expansion.thought:
        lost.append("think -20: holds thinking")
    possible = 140 if expansion.of("hyde") else 120
    return RuleScore(min(max(sum(parts.values()) / possible, 0.0), 1.0), parts, tuple(lost))


def is_diverse(one: str, other: str, least: int, language: Language) -> bool:
    """Whether two lines differ: neither holds the other, and at least `least` words are in one alone."""
    a, b = one.lower().strip(), other.lower().strip()
    if a in b or b in a:
        return False
    return len(set(words(one, language)) ^ set(words(other, language))) >= least


def echoes(line: str, query: str) -> bool:
    """Whether a line equals the query, is inside it, or contains it."""
    a, b = line.lower().strip(), query.lower().strip()
    return a in b or b in a


def _format(expansion: Expansion, lost: list[str]) -> float:
    points = 0.0
    for kind in ("lex", "vec"):
        if expansion.of(kind):
            points += 10
        else:
            lost.append(f"format -10: no {kind} line")
    if expansion.invalid:
        lost.append(f"format -{min(10, 5 * len(expansion.invalid))}: {len(expansion.invalid)} lines without text")
    return points + max(0, 10 - 5 * len(expansion.invalid))


def _diversity(query: str, expansion: Expansion, language: Language, lost: list[str]) -> float:
    lex, vec = expansion.of("lex"), expansion.of("vec")
    points = 0.0
    if len({line.kind for line in expansion.lines}) >= 2:
        points += 10
    else:
        lost.append("diversity -10: one kind of line alone")
    if len(expansion.lines) >= 2:
        points += 5
    else:
        lost.append("diversity -5: fewer than two lines")
    points += _distinct(lex, 3, "lex", language, lost) + _distinct(vec, 5, "vec", language, lost)
    echoing = [line for line in lex + vec if echoes(line, query)]
    if echoing:
        lost.append(f"diversity -5: echoes the query: {echoing[0][:SHOWN]!r}")
    return points + max(0, 5 - 5 * len(echoing))


def _distinct(lines: Sequence[str], least: int, kind: str, language: Language, lost: list[str]) -> float:
    """5 points, 2 less for each pair that is not diverse, at least 0; the first `COMPARED` lines count."""
    alike = 0
    for one, other in combinations(lines[:COMPARED], 2):
        if not is_diverse(one, other, least, language):
            alike += 1
            if alike == 1:
                lost.append(f"diversity: {kind} lines alike: {one[:SHOWN]!r}, {other[:SHOWN]!r}")
            if alike == 3:
                break
    return max(0, 5 - 2 * alike)


def _hyde(expansion: Expansion, language: Language, lost: list[str]) -> float:
    hydes = expansion.of("hyde")
    if not hydes:
        return 0.0
    text, points = hydes[0], 5.0
    if 50 <= len(text) <= 200:
        points += 5
    elif len(text) < 50:
        points += 2
        lost.append(f"hyde -3: {len(text)} characters, at least 50")
    else:
        lost.append(f"hyde -5: {len(text)} characters, at most 200")
    if len(hydes) == 1:
        points += 5
    else:
        lost.append(f"hyde -5: {len(hydes)} hyde lines")
    counted = Counter(words(text, language))
    allowed = word_lists(language).repeat
    repeated = [word for word, times in counted.items() if times >= 3 and word not in allowed]
    if repeated:
        lost.append(f"hyde -{min(5, 2 * len(repeated))}: three times or more: {', '.join(repeated[:3])}")
    return points + max(0, 5 - 2 * len(repeated))


def _quality(query: str, expansion: Expansion, language: Language, lost: list[str]) -> float:
    lex, vec, points = expansion.of("lex"), expansion.of("vec"), 5.0
    terms = key_terms(query, language)
    if lex and (not terms or all(holds_any(line, terms, language) for line in lex)):
        points += 5
    else:
        lost.append("quality -5: a lex line keeps no key term of the query")
    if lex and vec:
        is_shorter = sum(map(len, lex)) / len(lex) < sum(map(len, vec)) / len(vec)
        points += 5 if is_shorter else 3
        if not is_shorter:
            lost.append("quality -2: lex is not shorter than vec")
    if vec:
        is_language = all(reads_as_language(line, language) for line in vec)
        points += 5 if is_language else 3
        if not is_language:
            lost.append("quality -2: a vec line is only keywords")
    return points


def _entity(query: str, expansion: Expansion, language: Language, lost: list[str]) -> float:
    lex, vec = expansion.of("lex"), expansion.of("vec")
    named = entities(query, language)
    points = 10.0
    if named:
        holding = sum(any(name in line.lower() for name in named) for line in lex)
        points = 15.0 if lex and holding == len(lex) else 5.0 if holding else -30.0
        if points < 15:
            lost.append(
                f"entity {points - 15:g}: {holding} of {len(lex)} lex lines hold one of {', '.join(sorted(named))}"
            )
        if any(name in line.lower() for line in vec for name in named):
            points += 5
    for line in lex:
        for phrase in fillers_of(line, language):
            points -= 15
            lost.append(f"entity -15: a lex line is only {phrase!r}")
    return max(-45.0, min(20.0, points))
