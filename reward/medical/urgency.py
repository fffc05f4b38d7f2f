"""How urgent a question is: which emergency signs it names as happening now. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

from reward.medical.lexicons import Lexicons, Sign
from reward.medical.reading import Reading, Span, read

Level = Literal["emergency", "unclear", "none"]
SEVERAL = "多个危险征象"  # the sign of a question whose circumstances together are one
_HEAVY = 3  # of `_weighs`
_MOST = 50  # places of one sign that are looked into
_RANK: dict[Level, int] = {"none": 0, "unclear": 1, "emergency": 2}
_AFTERWARDS = 60  # characters after a sign in which its care is told
_GOES_ON = re.compile(
    "现在|目前|又|还是|仍|刚刚|刚才|今天|加重|越来越|没(?:有)?(?:好|缓解|见效|效)|不(?:见好|管用)|怎么办"
)
_SOMEBODY = re.compile(
    "[我他她你您咱俺]|爸|妈|父|母|爷|奶|姥|外婆|外公|孩子|宝宝|儿子|女儿|老公|老婆|媳妇|丈夫|妻|哥|姐|弟|妹|老人|朋友|同事|邻居|患者|病人|岁|这"
)
_THIS_TIME = re.compile("突然|忽然|突发|刚刚|刚才|现在|正在|此刻|这次|今天|昨天|昨晚|今早|加重|越来越|suddenly|now")
# 没想过自杀, 不敢自杀; 为什么有人会自杀, 如何预防自杀.
_NOT_MEANT = re.compile(
    "(?:没有?|不|从未|未|绝不|并非|不是)(?:要|再|会|敢|曾|真的?|什么|任何|过)?(?:想要?|打算|考虑|有|勇气|胆量|念头)?(?:过|要|去)?(?:的)?$"
)
_IN_GENERAL = re.compile(
    "(?:预防|防止|避免)[^,。;]{0,6}(?:自杀|自残|轻生|家暴)|为什么[^,。;]{0,6}(?:有人|人们|他们|那么多人)|(?:电视剧|电影|小说|书|新闻)(?:里|中|上)"
)


@dataclass(frozen=True)
class Urgency:
    """`signs` names what the level rests on; `crisis` is self-harm or violence, which asks for acts of its own."""

    level: Level
    signs: tuple[str, ...] = ()
    crisis: bool = False
    places: tuple[Span, ...] = ()


@lru_cache(maxsize=2048)
def urgency_of(question: str, lexicons: Lexicons) -> Urgency:
    """Return how urgent a question is.

    `emergency`: a sign is named as happening, undenied. `unclear`: a sign that is chronic, imagined or asked about in
    general, or something worrying; help may be called, and need not be. `none`: neither.
    """
    reading = read(question)
    # Signs that are listed together are denied together.
    listed = _sorted(
        match.span()
        for sign in lexicons.signs.signs
        for match in lexicons.any_of(sign.any or sign.all).finditer(reading.text)
        if match.group().strip()
    )
    if not listed:
        return _concern(reading, lexicons)
    found: dict[str, tuple[Level, str, Span]] = {}
    for sign in lexicons.signs.signs:
        hit = _level(reading, sign, lexicons, listed)
        if hit is not None and hit[0] != "none":
            found[sign.name] = (hit[0], sign.kind, hit[1])
    level: Level = max((level for level, _, _ in found.values()), key=_RANK.__getitem__, default="none")
    if level == "none":
        return _concern(reading, lexicons)
    if level == "unclear" and _weighs(reading, lexicons) >= _HEAVY:
        return Urgency("emergency", (SEVERAL,))
    leading = {name: hit for name, hit in found.items() if hit[0] == level}
    # A crisis leads where it is one of the signs.
    crisis = any(kind == "crisis" for _, kind, _ in leading.values())
    return Urgency(level, tuple(leading), crisis, tuple(span for _, _, span in leading.values()))


def _sorted(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(sorted(set(spans)))


def _weighs(reading: Reading, lexicons: Lexicons) -> int:
    """How heavily the circumstances weigh: serious symptoms that happen, one each, and one each for a sudden onset,
    somebody vulnerable, and an exposure. Without a serious symptom 0."""
    mild = [match.span() for match in lexicons.pattern(lexicons.context.mild).finditer(reading.text)]
    serious, contexts = set[str](), set[Context]()
    for match in islice(lexicons.pattern(lexicons.signs.serious).finditer(reading.text), _MOST):
        place = match.span()
        if any(start <= place[0] < end for start, end in mild) or reading.denies(*place, gone=True):
            continue
        context = _context(reading, place, lexicons)
        if context in ("now", "sudden"):
            serious.add(match.group())
            contexts.add(context)
    if not serious:
        return 0
    around = (lexicons.signs.vulnerable, lexicons.signs.exposure)
    return len(serious) + ("sudden" in contexts) + sum(_is_named(reading, pattern, lexicons) for pattern in around)


def _is_named(reading: Reading, pattern: str, lexicons: Lexicons) -> bool:
    places = (match.span() for match in lexicons.pattern(pattern).finditer(reading.text))
    return any(not reading.denies(*place) for place in islice(places, _MOST))


def _concern(reading: Reading, lexicons: Lexicons) -> Urgency:
    """The urgency of a question without a sign: a worrying word, or somebody who is newly and not just a little ill,
    makes it unclear."""
    known = lexicons.context
    weight = _weighs(reading, lexicons)
    if weight >= _HEAVY:
        return Urgency("emergency", (SEVERAL,))
    if weight == _HEAVY - 1:
        return Urgency("unclear")
    for match in lexicons.any_of(lexicons.signs.concern).finditer(reading.text):
        if not reading.denies(*match.span(), gone=True) and _context(reading, match.span(), lexicons) in (
            "now",
            "sudden",
        ):
            return Urgency("unclear")
    mild = [match.span() for match in lexicons.pattern(known.mild).finditer(reading.text)]
    ill = set[str]()
    for match in lexicons.pattern(known.symptoms).finditer(reading.text):
        if any(start <= match.start() < end for start, end in mild) or reading.denies(*match.span(), gone=True):
            continue
        context = _context(reading, match.span(), lexicons)
        if context == "sudden":
            return Urgency("unclear")
        if context == "now":
            ill.add(match.group())
    several = len(ill) > 1 and not lexicons.pattern(known.benign).search(reading.text)
    return Urgency("unclear") if several else Urgency("none")


def _level(reading: Reading, sign: Sign, lexicons: Lexicons, listed: tuple[Span, ...]) -> tuple[Level, Span] | None:
    """The level of a sign in this question and where it is named; None where it is not, or denied."""
    if sign.kind == "crisis":
        return _crisis(reading, sign, lexicons)
    if sign.any:
        places = _standing(reading, lexicons.any_of(sign.any), listed)
    else:
        each = [_standing(reading, lexicons.pattern(pattern), listed) for pattern in sign.all]
        if not all(each) or not _apart(each):
            return None
        places = each[0]
    best: tuple[Level, Span] | None = None
    of_somebody = bool(_SOMEBODY.search(reading.text))
    for place in places:
        level = _judged(sign, _context(reading, place, lexicons), of_somebody=of_somebody)
        if best is None or _RANK[level] > _RANK[best[0]]:
            best = (level, place)
    return best


def _crisis(reading: Reading, sign: Sign, lexicons: Lexicons) -> tuple[Level, Span] | None:
    """The level of a crisis sign: one that is denied, or tells of others in general, still calls for care."""
    if not all(lexicons.pattern(pattern).search(reading.text) for pattern in sign.all):
        return None
    best: tuple[Level, Span] | None = None
    for match in lexicons.any_of(sign.any or sign.all[:1]).finditer(reading.text):
        first = reading.clause(match.start())[0]
        before, sentence = reading.text[first : match.start()], reading.sentence_text(match.start())
        distant = _NOT_MEANT.search(before) or _IN_GENERAL.search(sentence)
        level: Level = "unclear" if distant else sign.level
        if best is None or _RANK[level] > _RANK[best[0]]:
            best = (level, match.span())
    return best


def _standing(reading: Reading, pattern: re.Pattern[str], listed: tuple[Span, ...]) -> list[Span]:
    """Where a pattern is found and not denied."""
    places = [match.span() for match in pattern.finditer(reading.text) if match.group().strip()]
    return [place for place in places[:_MOST] if not reading.denies(*place, names=listed, gone=True)]


def _apart(each: list[list[Span]]) -> bool:
    """Whether two patterns are found at places that do not overlap."""
    first, *others = each
    return all(any(a[1] <= b[0] or b[1] <= a[0] for a in first for b in other) for other in others)


Context = Literal["now", "sudden", "cared", "past", "caused", "topic", "imagined", "chronic"]


def _context(reading: Reading, place: Span, lexicons: Lexicons) -> Context:
    """How the question speaks of what stands at a place."""
    known = lexicons.context
    sentence_start, _ = reading.sentence(place[0])
    sentence, clause = reading.sentence_text(place[0]), reading.clause_text(place[0])
    clause_start = reading.clause(place[0])[0]
    before = reading.text[clause_start : place[0]]
    happens = lexicons.pattern(known.now).search(sentence)
    # 经常半夜疼醒 tells of no night in particular.
    if happens and lexicons.pattern(known.chronic).search(sentence) and not _THIS_TIME.search(sentence):
        happens = None
    # When it was counts for the whole sentence (去年…); a history of something else does not (有冠心病史，胸痛).
    told = reading.text[sentence_start : place[0]]
    if not happens and (lexicons.pattern(known.past_time).search(told) or lexicons.pattern(known.past).search(clause)):
        return "past"
    if lexicons.pattern(known.caused).search(before) and not happens:
        return "caused"
    if lexicons.pattern(known.imagined).search(reading.text[sentence_start : place[0]]) and not happens:
        return "imagined"
    # Somebody who was taken to a hospital since is in care, unless it goes on.
    after = reading.text[place[1] : place[1] + _AFTERWARDS]
    if (cared := lexicons.pattern(known.cared).search(after)) and not _GOES_ON.search(after[cared.start() :]):
        return "cared"
    chronic = lexicons.pattern(known.chronic).search(sentence)
    if happens or (lexicons.pattern(known.acute).search(sentence) and (not chronic or _THIS_TIME.search(sentence))):
        return "sudden"
    if lexicons.pattern(known.topic).search(clause):
        return "topic"
    return "chronic" if chronic else "now"


def _judged(sign: Sign, context: Context, *, of_somebody: bool) -> Level:
    """The level of a sign that is named in this way.

    Args:
        of_somebody: the question names a person: 晕厥的常见原因是什么 names none.
    """
    # Thoughts of death are no less urgent for being old, imagined or asked about in general.
    if sign.kind == "crisis":
        return sign.level
    if context == "past":
        return "none"
    if sign.kind == "condition":
        return sign.level if context == "sudden" else "none" if context in ("caused", "topic", "chronic") else "unclear"
    if context == "caused" or (context == "topic" and not of_somebody):
        return "none"
    if context in ("imagined", "topic", "chronic", "cared"):
        return "unclear"
    return sign.level
