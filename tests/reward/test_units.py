"""New content and copied runs of a rewrite."""

import random

import pytest

from reward.text.units import copied_run, idle_units, new_content, units

QUERY = "请问这个鱼油到底怎么吃才对啊"
PASSAGE = "本品适宜人群为中老年人，孕妇、哺乳期妇女不宜食用，每日2次，每次1粒，随餐服用。"


def shuffled(text: str) -> str:
    characters = list(text)
    random.Random(3).shuffle(characters)
    return "".join(characters)


@pytest.mark.parametrize(
    "rewrite",
    [
        QUERY,
        f"{QUERY}？",
        f"请问一下，{QUERY}呢",
        QUERY * 2,
        QUERY[:7],
        shuffled(QUERY),
        " ".join(QUERY),
        "鱼\u200b油怎么吃",
        "鱼油鱼油鱼油",
        "ｆｉｓｈ？",
        "你好，鱼油如何吃呢",
        "",
        "？？！",
    ],
)
def test_a_near_copy_has_no_new_content(rewrite):
    assert new_content(rewrite, f"{QUERY} fish") == 0


@pytest.mark.parametrize(
    ("rewrite", "query", "share"),
    [
        ("鱼油 用法用量", "鱼油咋吃", 3 / 5),  # 用 counts once
        ("孕妇 胶原肽", "我怀孕了能吃吗", 4 / 5),
        ("fish oil dosage", "How do I take fish oils?", 1 / 3),
        ("vitamin d3", "vitamin d", 1 / 2),
        ("糖尿病", "血糖高", 2 / 3),
    ],
)
def test_new_content_is_a_share_of_the_units(rewrite, query, share):
    assert new_content(rewrite, query) == pytest.approx(share)


def test_a_recital_counts_what_the_customer_did_not_say():
    assert copied_run("鱼油 孕妇 哺乳期妇女不宜食用每日2次", [PASSAGE], "孕妇能吃鱼油吗") == 12
    assert copied_run("鱼油 孕妇 不宜食用", [PASSAGE], "孕妇能吃鱼油吗") == 4
    assert copied_run("适宜人群 鱼油", [PASSAGE], "鱼油适宜人群") == 0
    assert copied_run("take two capsules daily with food", ["Take two capsules daily, with food."], "capsules") == 10
    assert copied_run("", [PASSAGE], "") == copied_run("鱼油", [], "") == 0


def test_pieces_of_a_passage_in_another_order_are_a_recital():
    pieces = "每次1粒，随餐服用 哺乳期妇女不宜食用 本品适宜人群为中"
    assert copied_run(pieces, [PASSAGE], "鱼油") >= 20
    assert (
        copied_run("鱼油 适宜人群 用法用量 注意事项", ["鱼油适宜人群：成人。用法用量：随餐。注意事项：避光。"], "鱼油")
        == 4
    )


@pytest.mark.parametrize(
    "thinned",
    [
        "本品适宜群为中老年人，每1粒随餐用。哺乳期女不宜用",  # every fifth unit left out
        "".join(units(PASSAGE)[::2]),
        "本品适宜的人群为中老年啊人每次1粒呢随餐服用",  # others put in
    ],
)
def test_a_thinned_passage_is_a_recital(thinned):
    assert copied_run(thinned, [PASSAGE], "鱼油") > 8


def test_idle_units_are_in_neither_passage_nor_query():
    assert idle_units("鱼油 孕妇 哺乳期", [PASSAGE], "孕妇能吃鱼油吗") == 0
    assert idle_units("鱼油 哺乳期 头晕 头晕", [PASSAGE], "孕妇能吃鱼油吗") == 2
    assert idle_units("请问 fish oils headache", ["fish oil"], "how") == 1
    assert idle_units("鱼油 头晕", [], "鱼油") == 2 and idle_units("", [PASSAGE], "") == 0


@pytest.mark.parametrize("text", ["三" * 5000, "🐟" * 5000, "a" * 20000, "\u200b" * 5000, "鱼 oil 😀 рыба" * 500])
def test_no_text_is_too_odd(text):
    assert 0 <= new_content(text, QUERY) <= 1 and new_content(QUERY, text) >= 0
    assert (
        copied_run(text[:500], [text], QUERY) >= 0
        and idle_units(text, [QUERY], "") >= 0
        and isinstance(units(text), list)
    )
