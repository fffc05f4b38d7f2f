"""A dialogue, as logs, CSV and workbooks record it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_prep.rows.dialogue import read_dialogue

SPOKEN = "用户: 鱼油怎么吃\n助手: 饭后吃"


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "鱼油怎么吃"}, {"role": "assistant", "content": "饭后吃"}],
        [{"role": "顾客", "content": "鱼油怎么吃"}, {"role": "坐席", "content": "饭后吃"}],
        [{"role": "Buyer", "content": " 鱼油怎么吃 "}, {"role": "BOT", "content": "饭后吃"}],
        [{"from": "human", "value": "鱼油怎么吃"}, {"from": "gpt", "value": "饭后吃"}],
        [{"role": "user", "parts": [{"text": "鱼油怎么吃"}]}, {"role": "model", "parts": ["饭后吃"]}],
        [
            {"role": "user", "content": [{"type": "text", "text": "鱼油怎么吃"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "content": ""},
            {"role": "assistant", "content": "饭后吃"},
        ],
        [{"用户": "鱼油怎么吃"}, {"客服": "饭后吃"}],
        [["鱼油怎么吃", "饭后吃"]],
        {"messages": [{"role": "user", "content": "鱼油怎么吃"}, {"role": "assistant", "content": "饭后吃"}]},
    ],
)
def test_every_shape_of_a_dialogue_is_the_same_text(turns: Any) -> None:
    packed = json.dumps(turns, ensure_ascii=False)
    for written in (turns, packed, json.dumps(packed), json.dumps(turns), repr(turns)):
        assert read_dialogue(written).text == SPOKEN
        assert read_dialogue(written).passed_over == []


@pytest.mark.parametrize("nothing", [None, "", "[]", "{}", [], {}, "null", "NaN", [{"role": "user", "content": None}]])
def test_no_turn_is_no_text(nothing: object) -> None:
    assert read_dialogue(nothing).text == ""


def test_what_is_no_turn_is_named() -> None:
    found = read_dialogue(
        [
            {"role": "system", "content": "你是客服"},
            {"role": "总部", "content": "已转接"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}, {"type": "text", "text": "这个"}]},
        ]
    )
    assert found.text == "用户: 这个"
    assert found.passed_over == [
        "turn that is no dialogue (system)",
        "turn of an unknown speaker (总部)",
        "part of a turn that is no text (image_url)",
    ]


@pytest.mark.parametrize("text", ["用户: 你好", "[表情] 你好", "{您好}", "(笑)", '他说"好"'])
def test_a_text_is_the_dialogue_itself(text: str) -> None:
    assert read_dialogue(text).text == text


@pytest.mark.parametrize("odd", [[1], [{"a": 1}], {"a": 1}, True, [{"role": "user", "content": True}]])
def test_what_holds_no_turns_is_refused(odd: object) -> None:
    with pytest.raises(ValueError, match="role, content"):
        read_dialogue(odd)


def test_what_an_assistant_thinks_is_no_part_of_a_dialogue() -> None:
    turns = [
        {"role": "user", "content": "<think>怎么写"},
        {"role": "assistant", "content": "<think>先想</think>\n每日两粒"},
        {"role": "assistant", "content": "<think>没有想完"},
    ]
    found = read_dialogue(turns)
    assert found.text == "用户: <think>怎么写\n助手: 每日两粒"
    assert found.passed_over == ["<think> stripped"] * 2


@pytest.mark.parametrize(
    "value",
    [
        {"history": {"messages": [{"role": "user", "content": "在吗"}, {"role": "model", "content": "您好"}]}},
        [{"question": "在吗", "answer": "您好"}],
        [{"query": "在吗", "response": "您好"}],
        [{"instruction": "在吗", "output": "您好"}],
        ["用户: 在吗", "客服：您好"],
        [{"type": "human", "content": "在吗"}, {"type": "ai", "content": "您好"}],
        [{"type": "human", "data": {"content": "在吗"}}, {"type": "ai", "data": {"content": "您好"}}],
        [{"角色": "用户", "内容": "在吗"}, {"角色": "AI客服", "内容": "您好"}],
        [{"sender_type": "customer", "msg": "在吗"}, {"sender_type": "agent", "msg": "您好"}],
        [{"role": "user", "content": '[{"type": "text", "text": "在吗"}]'}, {"role": "药师", "content": "您好"}],
    ],
)
def test_dialogues_as_other_programs_record_them(value: object) -> None:
    for written in (value, json.dumps(value), json.dumps(value, ensure_ascii=False)):
        found = read_dialogue(written)
        assert (found.text, found.passed_over) == ("用户: 在吗\n助手: 您好", [])
