"""Chinese numerals as numbers."""

import pytest

from reward.text.numbers import numeral_value


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
