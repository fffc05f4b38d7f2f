"""The numbers of a text, read with all that belongs to them: numeral, multiplier, unit, half, name. Pure, linear.

What is respelled reads the same: 一片半 and 1.5片, 10万 and 100000, 2周 and 14天, 9点半 and 上午9:30, ½ and 二分之一.
"""

from __future__ import annotations

import re
from functools import lru_cache

from reward.text.measures import HALF_OF, MONEY_SIGN, MULTIPLIER, MULTIPLIERS, UNITS, Unit, unit_at
from reward.text.numbers import (
    ENGLISH_NUMERAL,
    ENGLISH_ONE,
    IDIOMS,
    INSIDE_WORD,
    NUMERALS,
    Value,
    as_value,
    english_value,
    numeral_value,
    numeral_values,
    plus,
    times,
)
from reward.text.quantities import Mention, Quantity, clock, in_unit_of, named, quantity, summed

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMERAL = rf"[{NUMERALS}]+(?:点[零〇一二三四五六七八九]+(?![十百半刻]))?"
_ATOM = re.compile(
    rf"百分之(?P<percent>{_DIGITS}|{_NUMERAL})"
    rf"|(?P<bottom>{_DIGITS}|[{NUMERALS}]+)分之(?P<top>{_DIGITS}|[{NUMERALS}]+)"
    rf"|(?:(?P<whole>\d+) )?(?P<over>\d+)(?P<slash>[⁄/])(?P<under>\d+)(?![\d/⁄])"
    rf"|(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?!\d)"
    rf"|(?P<digits>{_DIGITS})|(?P<half>一?半)|(?P<numeral>{_NUMERAL})"
    rf"|(?P<english_half>(?<![a-z])half (?:of )?(?:an? )?)|(?P<english>{ENGLISH_NUMERAL})|(?P<one>{ENGLISH_ONE})"
)
_ANY = re.compile(rf"[\d{NUMERALS}半]|half|{ENGLISH_NUMERAL}|{ENGLISH_ONE}")
_NAME_BEFORE = re.compile(r"[a-z][a-z.+]{0,14}-?$")
_NAME_AFTER = re.compile(r"[a-z]{1,6}(?![a-z])")
_ORDINAL_AFTER = re.compile(r"(?:st|nd|rd|th|s)(?![a-z])")
_MINUTE = r"\d{1,2}(?!\d)|[零一二三四五六七八九十]{1,3}"
_CLOCK = re.compile(rf"[点时](?:[钟整]|(?P<half>半)|(?P<quarter>[一三])刻|(?P<minute>{_MINUTE})分?)?")
_SURE_CLOCK = re.compile(r"点(?:半|钟|整|[一三]刻)|[点时]\d{1,2}(?!\d)")
_DAY_HALF = re.compile(r"(?P<am>上午|早上|早晨|凌晨|清晨|早)|(?:下午|晚上|傍晚|中午|夜里|晚|午后|夜间)")
_RANGE = re.compile(r" ?(?:[-~–—到至]|to) ?")
_WEEKDAY = re.compile(r"(?<![一二两三四五六七八九十几\d])(?:周|星期|礼拜)$")
_COUNTED_AFTER_WEEK = re.compile("[次天回节顿粒片晚遍]")
_POINTED_AT = re.compile(r"(?:[这那哪前后头另其每各同过]|(?:the|other|these|those|both|last|next|first) )$")
# 几十, 数百, 上千, 近万: about that many
_ROUGH = re.compile("[几数](?=[十百千万亿])|[上成近](?=[百千万亿])")
_MORE = re.compile(" ?[多余来]?")
_AND_A_HALF = " and a half"
_HALF_MORE = re.compile(f"半(?![价夜天身路导月永成])|{_AND_A_HALF}")
# The numeral after these is a name: 数学一, 科目二, 方案三.
_NUMBERED = re.compile(r"(数学|英语|科目|方案|套餐|阶段|专业课|卷)$")
_TIME_AFTER_GE = re.compile("[多几来]?(?P<unit>小时|星期|礼拜|周|季度|钟头|学期|月(?!饼|经))")
_HALF_PERIOD = re.compile("个半(?P<unit>小时|月|学期|钟头)")
_TAIL = re.compile(r"[\d一二三四五六七八九](?![\d一二三四五六七八九十百千万])")
_SCHOOLS = frozenset("初高大")
_GRADE = re.compile("[一二三四](?![点些倍号个截头十百千万次])")
# Units whose "one" tells as much as any other number.
_TELLING = frozenset({"age", "级", "percent", "zhe", "degree", "倍"})
# 1天1片 says 每日一片.
_EACH = re.compile("1[天日周次顿回餐]")
_DATE = re.compile(r"(1[0-2]|0?[1-9])\.([0-2]\d|3[01])")


@lru_cache(maxsize=2048)
def mentions(text: str) -> tuple[Mention, ...]:
    """The numbers of a folded text (`reward.text.fold`) in their order."""
    if not _ANY.search(text):
        return ()
    found: list[Mention] = []
    position = 0
    while match := _ATOM.search(text, position):
        mention = _read(text, match)
        if mention is not None:
            position = mention.end
            _append(text, found, mention)
        else:
            idiom = IDIOMS.match(text, match.start())
            position = max(match.end(), idiom.end() if idiom else 0)
    return tuple(found)


def _read(text: str, match: re.Match[str]) -> Mention | None:
    """The mention that begins with `match`; None where the words only look like one."""
    start, end = match.span()
    before = text[max(0, start - 16) : start]
    if match["percent"]:
        return Mention(match.group(), start, end, (quantity(_plain(match["percent"]), UNITS["%"]),))
    if match["bottom"]:
        return _fraction(text, match, _plain(match["top"]), _plain(match["bottom"]))
    if match["slash"]:
        return _slashed(text, match)
    if match["hour"]:
        return Mention(
            match.group(), start, end, (clock(int(match["hour"]), int(match["minute"]), _half_of_day(before)),)
        )
    if match["half"]:
        return _half(text, match)
    if match["english_half"]:
        spelling = unit_at(text, end)
        if spelling is None:
            return None
        end += len(spelling)
        return Mention(text[start:end], start, end, (quantity(0.5, UNITS[spelling]),))
    if match["one"] and text.startswith(_AND_A_HALF, end):
        return _counted(text, start, end, (1,), before, spelled=True)
    if match["one"]:
        return Mention(match.group(), start, end, (quantity(1),), is_loose=True, may_drop=True)
    if match["english"]:
        return _counted(text, start, end, (english_value(match["english"]),), before, spelled=True)
    if match["digits"]:
        return _digits(text, start, end, _plain(match["digits"]), before)
    return _chinese(text, match, before)


def _digits(text: str, start: int, end: int, value: Value, before: str) -> Mention:
    # 10万, 2千5, 3k
    if (multiplier := MULTIPLIER.match(text, end)) and not unit_at(text, end):
        factor, end = MULTIPLIERS[multiplier.group()], multiplier.end()
        value = times(value, factor)
        if factor >= 1000 and (tail := _TAIL.match(text, end)) and multiplier.group() in "千万":
            value, end = plus(value, times(_plain(tail.group()), factor / 10)), tail.end()  # type: ignore[arg-type]
    if money := MONEY_SIGN.search(before):
        unit = "$" if money.group().strip() in ("$", "usd") else "元"
        return Mention(text[start:end], start, end, (quantity(value, UNITS[unit]),))
    if not unit_at(text, end) and (numbered := _NUMBERED.search(before)):
        return Mention(numbered[1] + text[start:end], start, end, (named(value, numbered[1]),))
    # B12, iphone14; 3D, 5G where it is no unit
    if (name := _NAME_BEFORE.search(before)) and not before.endswith(("no.", "no")):
        label = name.group().strip("-.+")
        return Mention(label + text[start:end], start, end, (named(value, label),))
    if (suffix := _NAME_AFTER.match(text, end)) and not unit_at(text, end):
        if not _ORDINAL_AFTER.match(text, end):
            return Mention(text[start : suffix.end()], start, suffix.end(), (named(value, f"…{suffix.group()}"),))
        end = suffix.end()
    return _counted(text, start, end, (value,), before, spelled=False)


def _chinese(text: str, match: re.Match[str], before: str) -> Mention | None:
    start, end, numeral = match.start(), match.end(), match["numeral"]
    if len(numeral) == 1 and _WEEKDAY.search(before) and not _COUNTED_AFTER_WEEK.match(text, end):
        return Mention(numeral, start, end, (named(numeral_value(numeral), "weekday"),))
    idiom = IDIOMS.match(text, start)
    is_label = numeral in "一二三四五六七八九" and not unit_at(text, end) and not (idiom and idiom.end() > end)
    if is_label and (name := _NUMBERED.search(before)):
        return Mention(name[1] + numeral, start, end, (named(numeral_value(numeral), name[1]),))
    is_hour = _DAY_HALF.search(before[-3:]) and text.startswith("点", end)
    if not is_hour and ((idiom and idiom.end() >= end) or (numeral == "一" and before[-1:] in INSIDE_WORD)):
        return None
    # 双十一; 初三, 高一, 大四
    if before[-1:] == "双" or (before[-1:] in _SCHOOLS and _GRADE.match(text, start)):
        grade = named(numeral_value(numeral), before[-1:])
        return Mention(before[-1:] + numeral, start, end, (grade,), may_drop=before[-1:] == "大")
    if (start and _ROUGH.match(text, start - 1)) or text.startswith("几", end):
        return Mention(numeral, start, end, (quantity(numeral_value(numeral)),), is_loose=True, may_drop=True)
    return _counted(text, start, end, numeral_values(numeral), before, spelled=True)


def _counted(text: str, start: int, end: int, values: tuple[Value, ...], before: str, *, spelled: bool) -> Mention:
    """A number with the hour, the unit and the half that follow it."""
    if text.startswith(_AND_A_HALF, end):
        values, end = tuple(plus(value, 0.5) for value in values), end + len(_AND_A_HALF)
    hour = values[0]
    is_clock = _SURE_CLOCK.match(text, end) or (_DAY_HALF.search(before[-3:]) and _CLOCK.match(text, end))
    if is_clock and isinstance(hour, int) and hour <= 24 and (read := _CLOCK.match(text, end)):
        minute = {"一": 15, "三": 45}.get(read["quarter"], 30 if read["half"] else 0)
        minute = int(_plain(read["minute"])) if read["minute"] else minute
        return Mention(text[start : read.end()], start, read.end(), (clock(hour, minute, _half_of_day(before)),))
    more = _MORE.match(text, end)
    unit_start = more.end() if more else end
    if period := _HALF_PERIOD.match(text, unit_start):
        unit = UNITS["个月" if period["unit"] == "月" else period["unit"]]
        values = tuple(plus(value, 0.5) for value in values)
        return _mention(text, start, period.end(), values, unit, before, spelled)
    spelling = unit_at(text, unit_start)
    if spelling is None:
        return _mention(text, start, end, values, None, before, spelled)
    unit, end = UNITS[spelling], unit_start + len(spelling)
    if spelling == "个" and (period := _TIME_AFTER_GE.match(text, end)):
        unit, end = UNITS["个月" if period["unit"] == "月" else period["unit"]], period.end()
    elif spelling == "年" and isinstance(hour, int) and 1900 <= hour < 2200:
        unit = Unit("calendar")
    elif spelling == "点" and isinstance(hour, int) and hour <= 24:
        # 一点 is a little as well.
        is_little = spelled and hour == 1
        return Mention(text[start:end], start, end, (clock(hour, 0, None),), may_drop=is_little, is_article=is_little)
    if half := _HALF_MORE.match(text, end):
        values, end = tuple(plus(value, 0.5) for value in values), half.end()
    elif spelling in ("块", "米") and (tail := _TAIL.match(text, end)) and not unit_at(text, tail.end()):
        # 三块五, 一米八
        values, end = tuple(plus(value, times(_plain(tail.group()), 0.1)) for value in values), tail.end()  # type: ignore[arg-type]
    return _mention(text, start, end, values, unit, before, spelled)


def _mention(
    text: str, start: int, end: int, values: tuple[Value, ...], unit: Unit | None, before: str, spelled: bool
) -> Mention:
    dimension = unit.dimension if unit else ""
    is_ordinal = before.endswith("第")
    is_one = spelled and values == (1,)
    # A lone numeral belongs to a word; 十六 and 二十五 are numbers without any unit.
    is_lone = len(values) > 1 or values[0] in range(11) or text[start] in "百千万亿"
    is_loose = spelled and unit is None and not is_ordinal and is_lone and text[start].isascii() is False
    may_drop = bool(
        is_loose
        or (is_one and dimension not in _TELLING)
        or (spelled and bool(_POINTED_AT.search(before)))
        or text[start] in "俩仨"
        or (is_ordinal and values == (1,))
        or _EACH.fullmatch(text[start:end])
        # What is compared is named instead: 这两种, AB两个方案.
        or (spelled and text[end - 1] in "个种款样" and values in ((2,), (3,)))
        or text[start:end] == "十一"
    )
    if dimension == "zhe":
        # 九五折 and 95折 are 9.5折.
        tenths = values[0] * 10 + values[1] if len(values) == 2 else values[0]  # type: ignore[operator]
        values = (times(tenths, 0.1) if isinstance(tenths, int) and 10 < tenths < 100 else values[0],)
    # 第二瓶 is 第2件.
    ends = tuple(quantity(value, None if is_ordinal else unit) for value in values)
    if not spelled and unit is None and (date := _DATE.fullmatch(text, start, end)):
        day = tuple(quantity(int(number)) for number in date.groups())
        return Mention(text[start:end], start, end, day, ends[0])
    # 四六 is four and six, or as it is read out.
    read_out = quantity(numeral_value(text[start:end])) if len(values) == 2 and unit is None else None
    is_article = is_one and dimension == "count" and not is_ordinal
    return Mention(text[start:end], start, end, ends, read_out, is_loose, may_drop, is_article, is_ordinal)


def _half(text: str, match: re.Match[str]) -> Mention | None:
    start = match.start()
    if match["half"] == "一半":
        return Mention("一半", start, match.end(), (quantity(50, UNITS["%"]),), may_drop=True)
    half = HALF_OF.match(text, start)
    if half is None:
        return None
    end, spelling = half.end(), half["unit"]
    if spelling == "价":
        return Mention("半价", start, end, (quantity(5, UNITS["折"]),))
    unit = UNITS["个月" if spelling == "月" else spelling]
    return Mention(text[start:end], start, end, (quantity(0.5, unit),), may_drop=spelling == "天")


def _fraction(text: str, match: re.Match[str], top: Value, bottom: Value) -> Mention | None:
    if isinstance(top, str) or isinstance(bottom, str) or not bottom:
        return None
    spelling = unit_at(text, match.end())
    end = match.end() + len(spelling or "")
    value = quantity(times(top, 1 / bottom), UNITS[spelling] if spelling else None)
    return Mention(text[match.start() : end], match.start(), end, (value,))


def _slashed(text: str, match: re.Match[str]) -> Mention:
    """1/2片 is a fraction, and so is ½; 9/10 may be a date or two options as well."""
    start, end = match.span()
    top, bottom, whole = as_value(match["over"]), as_value(match["under"]), as_value(match["whole"] or "0")
    if isinstance(top, str) or isinstance(bottom, str) or isinstance(whole, str) or not bottom:
        return Mention(match.group(), start, end, (Quantity(match.group()),))
    spelling = unit_at(text, end)
    fraction = quantity(plus(times(top, 1 / bottom), whole), UNITS[spelling] if spelling else None)
    end += len(spelling or "")
    if match["slash"] == "⁄" or spelling or match["whole"]:
        return Mention(text[start:end], start, end, (fraction,))
    return Mention(match.group(), start, end, (quantity(top), quantity(bottom)), fraction)


def _append(text: str, found: list[Mention], mention: Mention) -> None:
    """Add a mention, joined to the one before it where the two are one: 3-5天, 1小时30分钟."""
    last = found[-1] if found else None
    if last is None or mention.start - last.end > 3:
        found.append(mention)
        return
    between, text_of_both = text[last.end : mention.start], text[last.start : mention.end]
    one, other = last.ends[0], mention.ends[0]
    if between in ("", "零", "又") and (total := summed(one, other)):
        found[-1] = Mention(text_of_both, last.start, mention.end, (total,))
    elif not one.unit and other.unit not in ("", "name") and _RANGE.fullmatch(between):
        low = tuple(in_unit_of(end, other) for end in last.ends)
        found[-1] = Mention(text_of_both, last.start, mention.end, (*low, *mention.ends))
    else:
        found.append(mention)


def _half_of_day(before: str) -> str:
    half = _DAY_HALF.search(before[-3:])
    return "" if half is None else "am" if half["am"] else "pm"


def _plain(number: str) -> Value:
    return as_value(number.replace(",", "")) if number[0] in "0123456789." else numeral_value(number)
