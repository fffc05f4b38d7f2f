"""Normalising a column: the same texts as one by one, and a fast path for those that need no work."""

from __future__ import annotations

import sys
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.text.normalise import SETTLED, normalise_column, normalise_line, normalise_lines
from guard.personal.normal_form import rewritten_lines

# What normalising is about, next to each other far more often than by chance.
_TRICKY = st.sampled_from(
    [
        *" \t\n\r\v\f\x00\x1c\x1f\x85\xa0\xad\u1680\u2003\u2028\u2029\u200b\u200d\u202e\u3000\ufeff",
        *"０９ＡＺａｚ，。：！a1-中糖尿",
        *"e\u0301\u0327\u030a",  # accents that NFC orders and joins
        *"\u1100\u1161\u11a8가",  # Korean syllables in parts
        *"\u212b\u2126\uf900\u0958\u0344",  # characters that NFC replaces
        *"\u3099か゛\u302a",
        *"😀👍🏽\ufe0f☎",
    ]
)
_TEXTS = st.one_of(
    st.lists(_TRICKY, max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text("血糖 aB1，\n", max_size=20),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.none(), _TEXTS), max_size=8))
def test_a_column_is_its_texts_one_by_one(texts: list[str | None]) -> None:
    column = pa.array(texts, pa.string())
    assert normalise_column(column, keep_lines=True).to_pylist() == [normalise_lines(t or "") for t in texts]
    assert normalise_column(column, keep_lines=False).to_pylist() == [normalise_line(t or "") for t in texts]


@settings(max_examples=400, deadline=None)
@given(_TEXTS)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    for normalise in (normalise_line, normalise_lines):
        assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=400, deadline=None)
@given(_TEXTS)
def test_a_settled_text_is_what_rewriting_makes_of_it(text: str) -> None:
    for one in (text, rewritten_lines(text)):
        assert normalise_lines(one) == rewritten_lines(one)


def test_no_settled_character_can_be_changed_by_its_neighbours() -> None:
    """Unicode's NFC quick check, with the tables of this Python: of each character alone, so that it holds for all
    strings of them."""
    characters = {chr(c) for first, last in SETTLED for c in range(ord(first), ord(last) + 1)}
    joins_to_the_one_before = {
        chr(int(parts[1], 16))
        for code in range(sys.maxunicode + 1)
        if len(parts := unicodedata.decomposition(chr(code)).split()) == 2 and not parts[0].startswith("<")
    }
    assert not characters & joins_to_the_one_before
    for character in characters:
        assert unicodedata.combining(character) == 0
        assert rewritten_lines(character) == character


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_column_keeps_its_type_length_and_order(kind: pa.DataType) -> None:
    column = pa.array(["x", " 糖尿病 ", None, "ＡＢＣ１２３", "甲\r\n\r\n乙", "好"], kind)
    lines = normalise_column(column.slice(1), keep_lines=True)
    assert lines.type == kind
    assert lines.to_pylist() == ["糖尿病", "", "ABC123", "甲\n乙", "好"]
    assert normalise_column(column.slice(1), keep_lines=False).to_pylist() == ["糖尿病", "", "ABC123", "甲 乙", "好"]


@pytest.mark.parametrize("texts", [[], [None, None]])
def test_a_column_without_texts(texts: list[None]) -> None:
    column = normalise_column(pa.array(texts, pa.string()), keep_lines=False)
    assert column.type == pa.string()
    assert column.to_pylist() == [""] * len(texts)
