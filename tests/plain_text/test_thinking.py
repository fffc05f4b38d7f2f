"""A reasoning model's text without its thinking, as a whole and in pieces."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from plain_text.thinking import TAGS, Unthinking, thinking_of, thinks_unopened, without_thinking

BLOCKS = [
    ("<think>", "</think>"),
    ("<THINK>", "</Think>"),
    ("<thinking>", "</thinking>"),
    ("< think >", "</ think >"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("＜think＞", "＜/think＞"),
    ("&lt;think&gt;", "&lt;/think&gt;"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
]


def in_pieces(text: str, length: int, unopened: bool = False) -> str:
    thinking = Unthinking(unopened)
    pieces = [thinking.feed(text[start : start + length]) for start in range(0, len(text), length)]
    return "".join([*pieces, thinking.finish()])


@pytest.mark.parametrize(("opening", "closing"), BLOCKS)
def test_thinking_goes_wherever_it_is(opening: str, closing: str) -> None:
    thought = f"{opening}\n用户问鱼油 a<b。\n{closing}"
    for text, told in (
        (f"{thought}\n\n鱼油 用法", "鱼油 用法"),
        (f"{thought}鱼油{thought}", "鱼油"),
        (f"鱼油 {thought}", "鱼油"),
        (f"先想{closing}鱼油", "鱼油"),
        (f"{opening}一{opening}二{closing}三{closing}鱼油", "鱼油"),
        (f"{opening}没有想完", ""),
        (f"鱼油 {opening}没有想完", "鱼油"),
        (f"{opening}{closing}", ""),
    ):
        assert without_thinking(text) == told
    assert pc.match_substring_regex(pa.array([opening, closing, "鱼油"]), TAGS).to_pylist() == [True, True, False]
    assert thinks_unopened(f"先想{closing}鱼油") and not thinks_unopened(thought) and not thinks_unopened("鱼油")


@pytest.mark.parametrize(("opening", "closing"), BLOCKS)
@pytest.mark.parametrize("length", [1, 3, 7, 100])
def test_pieces_give_what_the_whole_gives(opening: str, closing: str, length: int) -> None:
    thought = f"{opening}想{closing}"
    for text in (f"{thought}鱼油[1]，血压<140 且 a<=b", f"鱼油[12]{thought}用法", f"{opening}没有想完"):
        assert in_pieces(text, length) == without_thinking(text)
    assert in_pieces(f"想{closing}鱼油", length, unopened=True) == "鱼油"
    assert in_pieces("鱼油，没有想", length, unopened=True) == "鱼油，没有想"


@pytest.mark.parametrize(
    "text", ["血压<140 且 a<=b", "I think so", " 鱼油 ", "<b>鱼油</b>", "1 [注] R&D", "think>", ""]
)
def test_other_text_stays(text: str) -> None:
    assert without_thinking(text) == text
    assert in_pieces(text, 1) == text.lstrip()


def test_what_a_model_or_an_interface_puts_around() -> None:
    assert without_thinking("<think>想</think>\n<answer>\n鱼油 用法\n</answer>") == "鱼油 用法"
    folded = '<details type="reasoning" done="true">\n<summary>3 s</summary>\n> 想\n</details>\n鱼油'
    assert without_thinking(folded) == "鱼油"
    assert without_thinking("<answer>鱼油</answer>") == "<answer>鱼油</answer>"


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        ("<think>a</think>b", "a"),
        ("a</think>b", "a"),
        ("<think>a", "a"),
        ("<think>a</think>b<think>c</think>d", "a\nc"),
        ("b", ""),
        ("<think></think>b", ""),
        ("＜think＞a＜/think＞b", "a"),
    ],
)
def test_the_thinking_itself(text, thinking):
    assert thinking_of(text) == thinking
