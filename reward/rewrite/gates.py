"""Gates of reward v2: what makes a rewrite worthless before anything is retrieved. Pure functions over text.

Dropped facts are checked against the original query only, and only as far as the length cap leaves room for them;
invented ones against query and context together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reward.records.outcome import Gated, GateReason
from reward.records.sample import Sample
from reward.text.fold import fold, fold_without_spaces
from reward.text.numbers import ARTICLE, COUNTED, NUMERALS, numeral_values

MAX_LENGTH_RATIO = 5
_TEMPLATE = re.compile(r"<\|[^|>]*\|>|</?think>|\[/?INST\]", re.IGNORECASE)
_CJK = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# Not the negators inside 特别, 分别, 性别 …, 非常, 无论, 未来.
_NEGATED = re.compile(r"(?:不是|没有|不|没|无(?!论)|未(?!来)|非(?!常)|(?<![特分区差性个级辨])别)([\u3400-\u9fff]{2})")
_A_NOT_A = re.compile(r"([\u3400-\u9fff])[不没]\1")
_NEGATION = re.compile(r"[不没无未非别禁忌勿]")
# What may make a number known: not the 百 of 百合 and the 千万 of "by all means".
_NUMERAL = re.compile(f"(?![百千万]+(?![{NUMERALS}]))[{NUMERALS}]+")
_COUNT = re.compile(rf"一(?={ARTICLE})|(?P<count>{COUNTED})")
_SENTENCE = re.compile(r"[a-z]+\s+[a-z]+", re.IGNORECASE)
_JUDGE = re.compile(
    r"评委|裁判|评审|打满?分|评分|满分|忽略(以上|之前|前面)|ignore ?(all|the|previous)|\bjudge\b|\bscore\b"
    r"|systemprompt",
    re.IGNORECASE,
)


def check_gates(
    sample: Sample, rewrite: str, *, gates: Iterable[GateReason], cap: int, protected_terms: Sequence[str], floor: float
) -> Gated | None:
    """The first of `gates` that `rewrite` fails, with the floor reward, or None.

    Args:
        cap: longest rewrite in characters; five times the original query applies as well.
        protected_terms: the tenant's lexicon that must be neither dropped nor invented.
    """
    enabled = set(gates)
    for reason, detail in _findings(sample, rewrite, cap, protected_terms):
        if reason in enabled:
            return Gated(reward=floor, reason=reason, detail=detail)
    return None


def _findings(
    sample: Sample, rewrite: str, cap: int, protected_terms: Sequence[str]
) -> Iterable[tuple[GateReason, str]]:
    query, text = fold_without_spaces(sample.original_query), fold_without_spaces(rewrite)
    known = query + fold_without_spaces(sample.context.text)
    room = min(cap, MAX_LENGTH_RATIO * len(sample.original_query))
    if not text:
        yield GateReason.EMPTY, ""
        return
    if "\n" in rewrite.strip() or "\ufffd" in rewrite or not _LETTER.search(text):
        yield GateReason.UNPARSEABLE, rewrite[:40]
    if leak := _TEMPLATE.search(rewrite):
        yield GateReason.TEMPLATE_LEAK, leak.group()
    if len(rewrite.strip()) > room:
        yield GateReason.TOO_LONG, f"{len(rewrite.strip())} > {room} characters"
    # A product code such as "dha" is no language; a rewrite may answer it in the language of the knowledge base.
    into_latin = _CJK.search(query) and not _CJK.search(text)
    into_cjk = _SENTENCE.search(sample.original_query) and _CJK.search(text) and not _CJK.search(known)
    if into_latin or into_cjk:
        yield GateReason.LANGUAGE_SWITCH, ""
    # With white space: "b12 30粒" holds no 1230.
    asked, said, context = map(fold, (sample.original_query, rewrite, sample.context.text))
    numbers = {*_NUMBER.findall(said), *_values(match["count"] for match in _COUNT.finditer(said))}
    for number in _fitting(_NUMBER.findall(asked), room):
        if number not in numbers:
            yield GateReason.NUMBER_DROPPED, number
    facts = f"{asked}\n{context}"
    known_numbers = {*_NUMBER.findall(facts), *_values(_NUMERAL.findall(facts))}
    # A rewrite's numerals are too often no numbers (一款, 第一) to call one invented.
    for number in _NUMBER.findall(said):
        if number not in known_numbers:
            yield GateReason.NUMBER_INVENTED, number
    for scope in _NEGATED.findall(_A_NOT_A.sub(r"\1", query)):
        # "没有糖尿病" -> "糖尿病" turns the meaning round; "不想要了" -> "退换货" does not.
        if scope in text and not _NEGATION.search(text):
            yield GateReason.NEGATION_DROPPED, scope
    terms = [fold_without_spaces(term) for term in protected_terms]
    for term in _fitting([term for term in terms if term in query], room):
        if term not in text:
            yield GateReason.TERM_DROPPED, term
    for term in terms:
        if term in text and term not in known:
            yield GateReason.TERM_INVENTED, term
    if (address := _JUDGE.search(text)) and address.group() not in known:
        yield GateReason.JUDGE_ADDRESSED, address.group()


def _values(numerals: Iterable[str | None]) -> set[str]:
    return {str(value) for numeral in numerals if numeral for value in numeral_values(numeral)}


def _fitting(facts: Sequence[str], room: int) -> list[str]:
    """The leading facts whose total length fits into `room` characters."""
    kept, used = [], 0
    for fact in facts:
        used += len(fact)
        if used > room:
            break
        kept.append(fact)
    return kept
