"""Whether a rewrite means what the query means, as far as words tell: numbers, negations, groups, products. Pure.

What is dropped is checked against the query alone, as far as the length cap leaves room; what is invented against the
query and its context.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from reward.records.outcome import GateReason
from reward.text.fold import fold
from reward.text.mentions import mentions
from reward.text.polarity import COMPLEMENT, Denial, denials, is_denied, is_name_denied
from reward.text.quantities import Known, Mention
from reward.text.terms import Lexicon, Term

Finding = tuple[GateReason, str]

# Of a longer context the end: what was said last.
READ = 20_000
# Negations of a text that are looked into.
MOST = 64
# A longer query tells a story, and no rewrite keeps all its numbers.
STORY = 60
_CJK_WORD = re.compile(r"[\u4e00-\u9fff][\u4e00-\u9fff0-9]")
# Which one of several things that were named before: 第二个呢, 选2.
_CHOICE = re.compile(
    r"(?:第|选|the )?\s*[\d一二三四五六七八九十]{1,2}\s*(?:个|款|种|条|项|家|号|样|者)?(?:呢|吧|的|那个)?[?？。]?"
)
# Units of which even a "one" tells something new.
_DOSES = frozenset({"pill", "gram", "litre", "iu", "money", "age", "级", "percent", "zhe"})
_PER = re.compile("[每天日周月年餐顿早晚夜] ?$")
# Other words for what a negation of doing, wanting or being able says.
_SAID_OTHERWISE = re.compile(
    "[前忘漏缺慎忌禁避拒退停删跨]|首次|初次|第一次|零基础|小白|新手|在读|应届|失败|异常|超时|延迟|推迟|逾期|取消|免|关闭|解除|注销"
    "|限制|故障|困难|除外|以外|之外|断货|在途|滞留|催|丢失|补[开办发交]|重开|失眠|不足|过量|空腹|未|无|reject|fail|avoid|refus|lack|stop|quit|miss"
)


@dataclass(frozen=True, slots=True)
class Polarity:
    """How a text speaks of a group or product, all its places together.

    Args:
        all_denied: 没怀孕.
        maybe_denied: one place may be denied, as in 无 高血压 糖尿病.
    """

    all_denied: bool
    maybe_denied: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a folded text says: its numbers, its terms, its negations, and whether it denies a group or product.

    Args:
        named: the groups and products it has a word for, more than a hint.
    """

    text: str
    numbers: tuple[Mention, ...]
    known: Known
    terms: tuple[Term, ...]
    denials: tuple[Denial, ...]
    groups: dict[str, Polarity]
    named: frozenset[str]


@lru_cache(maxsize=2048)
def facts_of(text: str, lexicon: Lexicon, *, of_context: bool = False) -> Facts:
    """The facts of a text as it was written; of a very long one those of its end.

    Args:
        of_context: what a context denies matters only where it names a group or product.
    """
    folded = fold(text)[-READ:]
    terms = lexicon.find(folded)
    # The 3 of Omega-3 is the product's; an age is a number and a term.
    taken = {place for term in terms if term.is_product for place in range(term.start, term.end)}
    numbers = tuple(n for n in mentions(folded) if taken.isdisjoint((n.start, n.end - 1)))
    denied = denials(folded, [(term.start, term.end) for term in terms]) if terms or not of_context else ()
    places: dict[str, list[tuple[bool, bool]]] = {}
    for term in terms:
        surely, maybe = (is_name_denied(folded, term.start, term.end, denied, maybe=each) for each in (False, True))
        places.setdefault(term.group, []).append((surely, maybe))
    groups = {
        group: Polarity(all(sure for sure, _ in some), any(maybe for _, maybe in some))
        for group, some in places.items()
    }
    named = frozenset(term.group for term in terms if not term.is_hint)
    return Facts(folded, numbers, Known.of(numbers), terms, denied, groups, named)


def number_findings(query: Facts, context: Facts, rewrite: Facts, room: int) -> Iterator[Finding]:
    """Numbers of the query that the rewrite lost, and numbers of the rewrite that nobody named."""
    lost = [n.text for n in _wanted(query, context, room) if not n.is_kept_in(rewrite.known)]
    # A numeral may be lost to a word (两个: 双人), a figure hardly.
    yield from ((GateReason.NUMBER_DROPPED, text) for text in lost if text[-1].isascii() or text[0].isascii())
    for number in rewrite.numbers:
        if number.is_loose or number.is_article or number.is_covered_by(query.known):
            continue
        if number.is_covered_by(context.known) or _is_known_of_both(number, query, context):
            continue
        if not (number.may_drop and _is_harmless(number, query, context, rewrite)):
            yield GateReason.NUMBER_INVENTED, number.text
    yield from ((GateReason.NUMBER_DROPPED, text) for text in lost)


def _wanted(query: Facts, context: Facts, room: int) -> Iterator[Mention]:
    """The numbers of the query that a rewrite must keep, as far as `room` allows."""
    has_context = bool(context.text)
    chooses = has_context and bool(_CHOICE.fullmatch(query.text.strip()))
    if chooses or len(query.text) > STORY:
        return
    for number in _fitting((n for n in query.numbers if not (n.may_drop or n.is_article)), room):
        # 第二个 points at what the context lists.
        if not (has_context and number.is_ordinal):
            yield number


def _is_known_of_both(number: Mention, query: Facts, context: Facts) -> bool:
    return all(query.known.holds(end) or context.known.holds(end) for end in number.ends)


def _is_harmless(number: Mention, query: Facts, context: Facts, rewrite: Facts) -> bool:
    """Whether a "one" only repeats an each, a unit that was asked about, or how something is sold or taught."""
    if number.ends[0].unit in _DOSES:
        return False
    unit = number.text[-1]
    if number.ends[0].unit == "time":
        # 一次 is at once, 每日一次 a dose.
        return not _PER.search(rewrite.text[: number.start]) or unit in query.text or unit in context.text
    return number.ends[0].unit != "minute" or unit in query.text or unit in context.text


def negation_findings(query: Facts, context: Facts, rewrite: Facts) -> Iterator[Finding]:
    """What is denied on one side and said on the other."""
    # Groups: the query's word counts; the context's where the query has none.
    for group, now in rewrite.groups.items():
        before = query.groups.get(group) or context.groups.get(group)
        if before and before.all_denied and not now.maybe_denied:
            yield GateReason.NEGATION_DROPPED, group
        if before and not before.maybe_denied and now.all_denied:
            yield GateReason.NEGATION_ADDED, group
    for denial in query.denials[:MOST]:
        key = _key(denial)
        if denial.asks or not key or _names_group(query, denial):
            continue
        if _is_said_otherwise(query, rewrite) or _is_said_too(query, key):
            continue
        places = _places(rewrite.text, key) or _scattered(rewrite.text, denial)
        if places and not any(is_denied(rewrite.text, start, end, rewrite.denials) for start, end in places):
            yield GateReason.NEGATION_DROPPED, denial.scope
    negative = _negative_characters(query)
    for denial in rewrite.denials[:MOST]:
        key = _key(denial)
        if denial.asks or not key or _names_group(rewrite, denial) or negative & set(key):
            continue
        places = _places(query.text, key)
        if places and not any(is_denied(query.text, start, end, query.denials) for start, end in places):
            yield GateReason.NEGATION_ADDED, denial.scope


def term_findings(query: Facts, context: Facts, rewrite: Facts, lexicon: Lexicon, room: int) -> Iterator[Finding]:
    """Groups and products that the rewrite lost, and those that nobody named."""
    asked, known, said = query.groups, context.groups, rewrite.groups
    products = {term.group for facts in (query, rewrite) for term in facts.terms if term.is_product}
    used = 0
    for group, polarity in asked.items():
        used += lexicon.shortest.get(group, 1)
        if used <= room and group in query.named and group not in said and not polarity.all_denied:
            yield GateReason.PRODUCT_DROPPED if group in products else GateReason.TERM_DROPPED, group
    for group in rewrite.named:
        if group not in asked and group not in known:
            yield GateReason.PRODUCT_INVENTED if group in products else GateReason.TERM_INVENTED, group


def _key(denial: Denial) -> str:
    """What to look for on the other side: the first two characters, or the word; "" where there is too little."""
    if denial.scope[0].isascii():
        return denial.scope if len(denial.scope) > 2 else ""
    return denial.scope[:2] if _CJK_WORD.match(denial.scope) else ""


def _places(text: str, key: str) -> list[tuple[int, int]]:
    pattern = rf"(?<![a-z]){re.escape(key)}(?![a-z])" if key[0].isascii() else re.escape(key)
    return [match.span() for match in re.finditer(pattern, text)]


def _scattered(text: str, denial: Denial) -> list[tuple[int, int]]:
    """The words of a longer scope in another order: 没签合同 and 合同 签订."""
    scope = denial.scope
    if len(scope) < 3 or scope[0].isascii() or not all(character in text for character in scope):
        return []
    return [(text.index(character), text.index(character) + 1) for character in scope]


def _is_said_otherwise(query: Facts, rewrite: Facts) -> bool:
    return any(word not in query.text for word in _SAID_OTHERWISE.findall(rewrite.text))


def _names_group(facts: Facts, denial: Denial) -> bool:
    return any(term.start == denial.scope_start for term in facts.terms)


def _is_said_too(query: Facts, key: str) -> bool:
    places = _places(query.text, key)
    return any(not is_denied(query.text, start, end, query.denials) for start, end in places)


def _negative_characters(query: Facts) -> set[str]:
    """The characters that the query denies itself, those of 打不开 and 登不上 among them."""
    denied = {character for denial in query.denials for character in query.text[denial.start : denial.end]}
    return denied | {character for match in COMPLEMENT.finditer(query.text) for character in match.groups()}


def _fitting(numbers: Iterable[Mention], room: int) -> Iterator[Mention]:
    """The leading numbers whose total length fits into `room` characters."""
    used = 0
    for number in numbers:
        used += len(number.text)
        if used > room:
            return
        yield number
