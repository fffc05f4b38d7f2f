"""Measures of a rewrite as a text, for the alarms: what it repeats, what it lost. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from reward.records.outcome import GateReason
from reward.records.rewrite_pair import texts_of
from reward.records.sample import Sample
from reward.rewrite.gates import check_gates
from reward.text.terms import NO_TERMS, Lexicon

LOST_FACTS = (
    GateReason.NUMBER_DROPPED,
    GateReason.NEGATION_DROPPED,
    GateReason.TERM_DROPPED,
    GateReason.PRODUCT_DROPPED,
    GateReason.NAME_DROPPED,
)
INVENTED_FACTS = (
    GateReason.NUMBER_INVENTED,
    GateReason.NEGATION_ADDED,
    GateReason.TERM_INVENTED,
    GateReason.PRODUCT_INVENTED,
)
NO_QUERY = (GateReason.TEMPLATE_LEAK, GateReason.UNPARSEABLE, GateReason.JUDGE_ADDRESSED)
_SEPARATORS = str.maketrans(dict.fromkeys(",，;；|/", "、"))


def character_entropy(texts: Iterable[str]) -> float:
    """Entropy in bits of the characters of all texts together; 0 without any."""
    counts = Counter(character for text in texts for character in text).values()
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts) if total else 0.0


def is_stuffed(text: str) -> bool:
    """Whether more than a third of the character pairs (in Latin text, word pairs) are repetitions, or the text is a
    list of more than eight short terms."""
    words = text.split()
    is_latin = sum(character.isascii() for character in text) > len(text) / 2
    units: Sequence[str] = words if is_latin else "".join(words)
    pairs = list(pairwise(units))
    if len(pairs) >= 6 and len(set(pairs)) < 2 / 3 * len(pairs):
        return True
    listed = (text if is_latin else "、".join(words)).translate(_SEPARATORS).split("、")
    terms = [term for term in listed if term.strip()]
    return len(terms) > 8 and fmean(map(len, terms)) <= (15 if is_latin else 5)


def fails_gates(sample: Sample, rewrite: str, gates: Iterable[GateReason], lexicon: Lexicon = NO_TERMS) -> bool:
    """Whether a rewrite fails one of these gates, whichever ones the run itself had."""
    cap = max(len(rewrite), 500)
    found = (check_gates(sample, text, gates=gates, cap=cap, lexicon=lexicon, floor=-1.0) for text in texts_of(rewrite))
    return any(gated is not None for gated in found)
