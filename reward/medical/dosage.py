"""Doses in an answer: amounts of a drug, how often it is taken, however they are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reward.text.mentions import mentions
from reward.text.quantities import Mention

# Dimensions in which a drug is measured (`reward.text.measures`).
_AMOUNTS = frozenset({"gram", "litre", "iu", "pill", "pack", "滴", "勺", "口", "张", "把", "杯"})
_SOFT = frozenset({"pack", "勺", "口", "张", "杯", "litre"})
_NUMBER = r"[\d〇零一二两三四五六七八九十百千万半俩仨.]+"
_NOT_COUNTED = r"(?![\d年月日号岁/])"
# The unit before the number: 毫克500, 片数:2, mg 500.
_TURNED_ROUND = re.compile(
    r"(?:(?<![a-z])(?:mg|mcg|ug|ml|g|iu)|毫克|微克|毫升|克|片|粒|颗|丸|支|滴|单位)(?:数|量)?"
    rf"[ :=为是约x×*乘计()]{{0,3}}(?P<number>{_NUMBER}){_NOT_COUNTED}"
)
# A bare number where a dose stands: 一次三百, 每顿俩, 剂量 0.5.
_BARE = re.compile(
    r"(?:(?:每|一|1)(?:次|顿|回|餐)|剂量|用量|药量|服量|单次|早|中|晚|睡前|首剂)[ :=为是约吃服用各]{0,3}"
    rf"(?P<number>{_NUMBER})(?![\d年月号岁%/]|次|回|遍|顿|天|日|周|个?小时|分钟|点|到\d+点|个?月|种|类|个(?!胶囊|药))"
)
# x2, ×3 behind a drug's name.
_TIMES = re.compile(r"[x×]\s?(?P<number>\d{1,2})(?!\d)")
# Two shots, three vials: units that only drugs come in.
_SHOTS = re.compile(r"(?P<number>[一二两三四五六七八九十\d])(?:针(?!灸)|钱(?![包的多买])|吊瓶|瓶点滴|副药|剂药)")
# A part of a pill or a pack: 掰成三分之一, 倒出四分之一的粉.
_PART = re.compile(
    r"(?:掰|切|分|剪)(?:成|开|下|为)?(?:一半|两半|半|[二三四五六八两]?[瓣份块]|(?=[二三四五六八十]分之))"
    r"|[二三四五六八十]分之[一二三四五](?:的)?(?:片|粒|颗|袋|包|支|粉|药|丸|贴)?"
)
# A number of pills without their unit: 吃俩, 吃仨.
_COUNTED = re.compile(r"(?:吃|服|用|嚼|含|吞)(?:上|个|它)?(?P<number>[俩仨])(?![人口])")
_FREQUENCY = re.compile(
    r"(?:每|一|1)(?:天|日|周|晚)(?:服|吃|用|打)?\s?(?:[一二两三四五六\d]|[1-9]-[1-9])\s?(?:次|回|顿|遍)"
    r"|(?:每|隔)\s?(?:[一二两三四五六七八九十\d]+)\s?个?(?:小时|钟头)(?:服|吃|用|打|一|1|再)?"
    r"|(?:[一二两三四五六七八九十]+|\d{1,2})个?(?:小时|钟头)(?:吃|服|喝|喂|用)?(?:一|1)次"
    r"|(?:日|天)(?:服)?[一二三四两\d]次|早晚各|早中晚各|三餐(?:前|后)各|饭[前后]各"
    r"|(?<![a-z])(?:bid|tid|qid|qd|qn|q\d+h|prn|once daily|twice (?:a day|daily)|(?:three|four) times (?:a day|daily)"
    r"|every (?:\d+|two|three|four|six|eight|twelve) hours)(?![a-z])"
)
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Dose:
    """An amount or a frequency at `text[start:end]`; `grams` is None where it is not a weight."""

    start: int
    end: int
    grams: float | None = None
    is_frequency: bool = False
    is_soft: bool = False


def doses(text: str) -> Iterator[Dose]:
    """Yield what may be a dose in a readable text: whether it belongs to a drug is for the caller to see.

    `is_soft`: a pack, a spoon, a volume: it may as well be of something else.
    """
    for mention in mentions(text):
        unit = mention.ends[-1].unit
        if unit in _AMOUNTS and not _is_weight_of_body(text, mention):
            yield Dose(mention.start, mention.end, _grams(mention), is_soft=unit in _SOFT)
    for pattern in (_TURNED_ROUND, _BARE, _TIMES, _SHOTS, _PART, _COUNTED):
        for match in pattern.finditer(text):
            yield Dose(match.start(), match.end(), _turned_grams(match.group()), is_soft=pattern is _TIMES)
    for match in _FREQUENCY.finditer(text):
        yield Dose(match.start(), match.end(), is_frequency=True)


def squeezed(text: str) -> str:
    """The text without any blank: 5 0 0 m g is read as 500mg."""
    return _SPACES.sub("", text)


def _is_weight_of_body(text: str, mention: Mention) -> bool:
    before, unit = text[max(0, mention.start - 4) : mention.start], mention.text
    return bool(re.search("体重|每$|/$", before)) and unit.endswith(("公斤", "千克", "kg", "斤"))


def _grams(mention: Mention) -> float | None:
    """The largest amount of a mention, in grams."""
    amounts = [amount for end in mention.ends for dimension, amount in end.keys if dimension == "gram"]
    numbers = [float(amount) for amount in amounts if isinstance(amount, int | float)]
    return max(numbers, default=None)


def _turned_grams(text: str) -> float | None:
    """The grams of a unit that stands before its number."""
    unit = re.match(r"mg|mcg|ug|g|毫克|微克|克", text)
    if unit is None:
        return None
    number = re.search(_NUMBER, text[unit.end() :])
    read = mentions(f"{number.group()}{unit.group()}") if number else ()
    return _grams(read[0]) if read else None
