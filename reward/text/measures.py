"""Units of measure: what a quantity is compared as. Pure.

A unit has a dimension and a factor to the dimension's own unit; quantities of one dimension are equal when their
values times their factors are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Unit(NamedTuple):
    dimension: str
    factor: float = 1.0


# Dimension -> spelling -> factor. Spellings of one dimension without a factor mean the same to a shopper or a clerk.
_MEASURED: dict[str, Mapping[str, float]] = {
    "minute": {
        **dict.fromkeys(("分钟", "min", "mins", "minute", "minutes"), 1),
        **dict.fromkeys(("小时", "钟头", "h", "hr", "hrs", "hour", "hours"), 60),
        **dict.fromkeys(("天", "日", "昼夜", "day", "days", "d"), 1440),
        **dict.fromkeys(("周", "星期", "礼拜", "week", "weeks"), 7 * 1440),
        **dict.fromkeys(("秒", "秒钟", "sec", "second", "seconds"), 1 / 60),
    },
    "month": {
        **dict.fromkeys(("个月", "月龄", "month", "months"), 1),
        **dict.fromkeys(("季度", "quarter", "quarters"), 3),
        **dict.fromkeys(("年", "周年", "载", "year", "years"), 12),
    },
    "age": dict.fromkeys(("岁", "周岁", "year-old", "years old", "year old", "years of age", "yo"), 1),
    "money": {
        **dict.fromkeys(("元", "块", "块钱", "元钱", "圆", "¥", "rmb", "cny", "yuan", "人民币"), 1),
        **dict.fromkeys(("毛", "毛钱"), 0.1),
    },
    "dollar": dict.fromkeys(("美元", "美金", "刀", "$", "usd", "dollar", "dollars"), 1),
    "percent": {"%": 1, "percent": 1, "个点": 1, "成": 10, "个百分点": 1},
    "gram": {
        **dict.fromkeys(("微克", "μg", "ug", "mcg"), 1e-6),
        **dict.fromkeys(("毫克", "mg"), 1e-3),
        **dict.fromkeys(("克", "g", "gram", "grams"), 1),
        **dict.fromkeys(("公斤", "千克", "kg", "kilo", "kilos", "kilograms"), 1000),
        "斤": 500,
    },
    "litre": {
        **dict.fromkeys(("毫升", "ml", "cc"), 1e-3),
        **dict.fromkeys(("升", "l", "liter", "litre", "liters", "litres"), 1),
    },
    "metre": {
        **dict.fromkeys(("毫米", "mm"), 1e-3),
        **dict.fromkeys(("厘米", "公分", "cm"), 1e-2),
        **dict.fromkeys(("米", "m", "meter", "meters", "metre", "metres"), 1),
        **dict.fromkeys(("公里", "千米", "km"), 1000),
    },
    "area": dict.fromkeys(("平方米", "平米", "平方", "平", "m2", "m^2", "sqm"), 1),
    "iu": dict.fromkeys(("iu", "国际单位", "单位", "u"), 1),
    "degree": dict.fromkeys(("°c", "℃", "度", "摄氏度", "°"), 1),
    "calorie": dict.fromkeys(("kcal", "千卡", "大卡", "卡路里", "卡"), 1),
    "byte": {"gb": 1, "mb": 1e-3, "tb": 1e3},
    "pill": dict.fromkeys(
        ("片", "粒", "颗", "枚", "丸", "tablet", "tablets", "pill", "pills", "capsule", "capsules", "softgels"), 1
    ),
    "pack": dict.fromkeys(
        ("瓶", "罐", "桶", "盒", "袋", "包", "支", "条", "贴", "bottle", "bottles", "box", "boxes", "pack", "packs"), 1
    ),
    "time": dict.fromkeys(("次", "回", "遍", "顿", "趟", "餐", "times"), 1),
    "count": dict.fromkeys(
        ("个", "件", "样", "项", "种", "款", "份", "只", "台", "部", "位", "名", "人", "家", "户"), 1
    )
    | dict.fromkeys(("people", "persons", "devices", "items"), 1),
    "lesson": dict.fromkeys(("节", "课时", "课", "讲", "节课", "lesson", "lessons"), 1),
    "subject": dict.fromkeys(("门", "科", "门课"), 1),
    "zhe": dict.fromkeys(("折",), 1),
    "monthname": dict.fromkeys(("月", "月份"), 1),
    "dayname": dict.fromkeys(("号",), 1),
}
UNITS: dict[str, Unit] = {
    spelling: Unit(dimension, factor)
    for dimension, spellings in _MEASURED.items()
    for spelling, factor in spellings.items()
}
# Each a dimension of its own: what is counted by one of them is counted by no other.
_COUNTERS = "分点时滴勺杯碗口倍章页题届班步层楼本轮代期级线模封把张根对双场关排组档"
UNITS |= {character: Unit(character) for character in _COUNTERS}
UNITS |= {"道": Unit("题"), "道题": Unit("题")}
UNITS |= {
    "年级": Unit("级"),
    "单元": Unit("章"),
    "学期": Unit("学期"),
    "道": Unit("题"),
    "道题": Unit("题"),
    "年": UNITS["周年"],
}
# Levels, models, editions: a bare number says the same (CET-4, 四级).
LABELS = frozenset("级期代线模届轮") | {"dayname", "monthname"}
_BY_FIRST: dict[str, list[str]] = {}
for _spelling in sorted(UNITS, key=len, reverse=True):
    _BY_FIRST.setdefault(_spelling[0], []).append(_spelling)


def unit_at(text: str, position: int) -> str | None:
    """The longest unit that begins at `position`; a Latin one ends where its word does."""
    for spelling in _BY_FIRST.get(text[position : position + 1], ()):
        if text.startswith(spelling, position):
            last, after = spelling[-1], text[position + len(spelling) : position + len(spelling) + 1]
            if not (last.isascii() and last.isalpha() and after.isascii() and after.isalpha()):
                return spelling
    return None


MONEY_SIGN = re.compile(r"(?:¥|\$|rmb|cny|usd) ?$")
MULTIPLIER = re.compile(r"(?:百|千|万|亿|百万|千万|w(?![a-z])|k(?![a-z]))")
MULTIPLIERS = {"百": 1e2, "千": 1e3, "万": 1e4, "亿": 1e8, "百万": 1e6, "千万": 1e7, "w": 1e4, "k": 1e3}
HALF_OF = re.compile(
    "半个?(?P<unit>年(?!级)|月(?!板)|天|日|小时|钟头|周|星期|学期|片|粒|颗|袋|包|勺|瓶|盒|杯|斤|克|价|岁|碗|滴|公斤|支|块)"
)
