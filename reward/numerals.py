"""Chinese numerals as numbers. Pure."""

from __future__ import annotations

NUMERALS = "零〇一二两三四五六七八九十百千万"
_PLACES = {"十": 10, "百": 100, "千": 1000}
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}


def numeral_value(numeral: str) -> int:
    """The number a run of `NUMERALS` stands for: 二十五 is 25, 二〇二六 is 2026, 十 is 10."""
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
    return total + section + digit
