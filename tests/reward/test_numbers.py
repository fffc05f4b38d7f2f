"""Chinese numerals as numbers."""

import pytest

from reward.text.numbers import numeral_value, with_plain_numerals


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("二十五", 25),
        ("二〇二六", 2026),
        ("两千五", 2500),
        ("三万五", 35_000),
        ("一万二千", 12_000),
        ("一亿二千万", 120_000_000),
        ("三点五", 3.5),
        ("点五", 0.5),
        ("𐒠", "𐒠"),
    ],
)
def test_numeral_value(numeral, value):
    assert numeral_value(numeral) == value


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("伍佰毫克", "五百毫克"),
        ("壹仟贰佰叁拾元", "一千二百三十元"),
        ("每次贰粒", "每次二粒"),
        # a surname, a verb, a land
        ("伍医生收拾大陆的行李", "伍医生收拾大陆的行李"),
        ("五百毫克", "五百毫克"),
    ],
)
def test_formal_numerals(text, plain):
    assert with_plain_numerals(text) == plain
