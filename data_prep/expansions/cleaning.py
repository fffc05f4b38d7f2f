"""Lines that take a technical term for something else are dropped, miswritten terms are mended, personal data is
masked, repeats go. Pure.

The terms are in `words/misread_terms.yaml`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from data_prep.expansions.examples import Example
from data_prep.text.deidentify import deidentify_text
from reward.expansion.language import CJK
from reward.expansion.parser import LineKind, parse
from reward.expansion.rules import score
from reward.settings.data import DeidentifySettings

_MASKED = DeidentifySettings()
_TERMS = Path(__file__).with_name("words") / "misread_terms.yaml"


@dataclass(frozen=True)
class Sense:
    """A term, words that show its technical sense, and words that show another."""

    term: str
    technical: re.Pattern[str]
    other: re.Pattern[str]
    named: re.Pattern[str]

    def is_meant(self, query: str) -> bool:
        """Whether a query means the technical sense, and says so."""
        rest = self.named.sub(" ", query)
        return rest != query and bool(self.technical.search(rest)) and not self.other.search(rest)

    def is_misread(self, line: str) -> bool:
        rest = self.named.sub(" ", line)
        return bool(self.other.search(rest)) and not self.technical.search(rest)


@dataclass
class Cleaned:
    """The examples that stay, and what was done: how many lines or examples for each reason."""

    examples: list[Example] = field(default_factory=list)
    left_out: list[tuple[Example, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def clean(examples: Iterable[Example], least_score: float = 0.0) -> Cleaned:
    """Clean examples one by one; one that loses every lex line or every vec line is left out, and one whose lines then
    score below `least_score`, in [0, 1]."""
    done, seen = Cleaned(), set()
    for given in examples:
        example = _masked(given, done.counts)
        if parse(example.expansion.to_text()).leaked:
            done.left_out.append((example, "piece of a chat template"))
            continue
        lines = _cleaned_lines(example, done.counts)
        lost = {kind for kind, _ in example.output} - {kind for kind, _ in lines} - {"hyde"}
        if not lines or lost:
            done.left_out.append((example, f"every {sorted(lost)[0] if lost else 'hyde'} line is misread"))
            continue
        cleaned = example.with_lines(lines) if tuple(lines) != example.output else example
        if (key := (cleaned.query.lower(), cleaned.output)) in seen:
            done.left_out.append((example, "repeats an earlier example"))
            continue
        seen.add(key)
        if least_score and score(cleaned.query, cleaned.expansion).total < least_score:
            done.left_out.append((example, f"scores below {least_score:g}"))
            continue
        done.examples.append(cleaned)
    done.counts.update(reason for _, reason in done.left_out)
    return done


def _masked(example: Example, counts: Counter[str]) -> Example:
    """Mask personal data in query and lines, as every builder of training data does."""
    texts = [deidentify_text(text, _MASKED) for text in (example.query, *(text for _, text in example.output))]
    found = sum((kinds for _, kinds in texts), Counter[str]())
    if not found:
        return example
    counts.update({f"{kind} masked": places for kind, places in found.items()})
    (query, _), *lines = texts
    masked = tuple((kind, text) for (kind, _), (text, _) in zip(example.output, lines, strict=True))
    return example.model_copy(update={"query": query, "output": masked})


def _cleaned_lines(example: Example, counts: Counter[str]) -> list[tuple[LineKind, str]]:
    query = example.query.lower()
    meant = [sense for sense in senses() if sense.is_meant(query)]
    spelled = [(term, wrong) for term, wrong in spellings() if _holds(example.query, term)]
    lines: dict[tuple[LineKind, str], None] = {}
    for kind, written in example.output:
        text = written
        if (misread := next((sense.term for sense in meant if sense.is_misread(text.lower())), None)) is not None:
            counts[f"line takes {misread} for something else"] += 1
            continue
        for term, wrong in spelled:
            if not _holds(text, term) and (mended := term.join(wrong.split(text))) != text:
                text = mended
                counts[f"{term} mended"] += 1
        if (kind, text) in lines:
            counts["line repeats an earlier one"] += 1
        lines[kind, text] = None
    return list(lines)


@lru_cache
def senses() -> tuple[Sense, ...]:
    return tuple(
        Sense(one["term"], _any_of(one["technical"]), _any_of(one["other"]), _any_of([one["term"]]))
        for one in _read()["senses"]
    )


@lru_cache
def spellings() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return each term with a pattern of its miswritten forms."""
    return tuple((one["term"], _any_of(one["miswritten"])) for one in _read()["spellings"])


def _read() -> dict[str, Any]:
    terms: dict[str, Any] = yaml.safe_load(_TERMS.read_text(encoding="utf-8"))
    return terms


def _holds(text: str, term: str) -> bool:
    return bool(re.search(rf"(?<![\w.+#/-]){re.escape(term)}(?![\w+#])", text, re.IGNORECASE))


def _any_of(terms: Iterable[str]) -> re.Pattern[str]:
    """Match one of the terms: as a word in Latin letters, as a piece of text in Chinese."""
    parts = [re.escape(term) if CJK.search(term) else rf"(?<![\w+#.-]){re.escape(term)}(?![\w+#])" for term in terms]
    return re.compile("|".join(parts), re.IGNORECASE)
