"""Chinese numerals as numbers. Pure."""

from __future__ import annotations

import re

NUMERALS = "零〇一二两三四五六七八九十百千万"
UNITS = (
    "个位名岁年月周天日号点时分秒次遍回片粒颗枚支瓶盒袋包罐勺滴杯碗度克斤两升米元块角折倍"
    "级期节课门章页题道届班步条款种套层楼"
)
# Patterns: a numeral before a unit, and what follows a "one" that is but an article (一个).
COUNTED = rf"[{NUMERALS}]+(?=[多几]?(?:分钟|小时|公里|[毫公厘]?[{UNITS}]))"
ARTICLE = r"[个种点]"
_PLACES = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_RANGE = re.compile("[一二两三四五六七八九]{2}")


def numeral_value(numeral: str) -> int:
    """The number a run of `NUMERALS` stands for: 二十五 is 25, 二〇二六 is 2026, 两千五 is 2500."""
    if _DIGITS.keys() >= set(numeral):
        return int("".join(str(_DIGITS[character]) for character in numeral))
    total = section = digit = 0
    for character in numeral:
        if character == "万":
            total, section, digit = (total + section + digit or 1) * 10_000, 0, 0
        elif character in _PLACES:
            section, digit = section + (digit or 1) * _PLACES[character], 0
        else:
            digit = _DIGITS[character]
    if numeral[-2:-1] in ("百", "千", "万"):
        digit = digit * _PLACES[numeral[-2]] // 10 or digit
    return total + section + digit


def numeral_values(numeral: str) -> set[int]:
    """The numbers a run of `NUMERALS` may stand for: of a range both ends (三四: 3 and 4, 二三十: 20 and 30)."""
    ends = _RANGE.search(numeral)
    # Longer runs name no range; each pair in one would double the work.
    longest = 3 if _DIGITS.keys() >= set(numeral) else 8
    if ends is None or len(numeral) > longest:
        return {numeral_value(numeral)}
    first, second = ends.start(), ends.start() + 1
    without_first, without_second = numeral[:first] + numeral[second:], numeral[:second] + numeral[second + 1 :]
    return numeral_values(without_first) | numeral_values(without_second)
