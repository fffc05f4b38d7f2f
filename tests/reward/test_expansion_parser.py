"""The parser of expansions: any text parses; only `kind: text` lines are searched with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.expansion.parser import Expansion, Line, parse
from reward.expansion.prompt import build_messages, build_sft_messages

GOOD = "lex: redis cache node\nvec: how to cache with redis in node\nhyde: Redis keeps hot keys in memory."


def test_typed_lines_in_their_order():
    expansion = parse(GOOD)
    assert [line.kind for line in expansion.lines] == ["lex", "vec", "hyde"]
    assert expansion.of("lex") == ("redis cache node",)
    assert expansion.is_valid and expansion.to_text() == GOOD


@pytest.mark.parametrize(
    "line", ["LEX: a", "lex：中文冒号", "- lex: a", "lexical: a", "lex a", "query: a", "好的，如下"]
)
def test_a_line_without_a_kind_is_unknown(line):
    expansion = parse(f"{GOOD}\n{line}")
    assert expansion.unknown == expansion.invalid == (line,)
    assert not expansion.is_valid


@pytest.mark.parametrize("line", ["lex:", "vec:   ", "hyde:\t"])
def test_a_kind_without_text_is_invalid_and_known(line):
    expansion = parse(f"{GOOD}\n{line}")
    assert len(expansion.invalid) == 1 and expansion.unknown == ()


@pytest.mark.parametrize("breaks", ["\n\n", "\r\n", "\n \t\n", "\u2028", "\x0b"])
def test_every_line_break_ends_a_line_and_blank_lines_do_not_count(breaks):
    assert parse(f"lex: a{breaks}vec: b") == Expansion((Line("lex", "a"), Line("vec", "b")))


@pytest.mark.parametrize(
    "piece", ["<|im_end|>", "<|im_start|>assistant", "<｜end▁of▁sentence｜>", "</s>", "[/INST]", "<end_of_turn>"]
)
def test_template_leaks(piece):
    assert parse(f"{GOOD}{piece}").leaked
    assert parse(f"{piece}\n{GOOD}").leaked


def test_a_pipe_of_code_is_no_template():
    assert not parse("lex: elixir pipe operator |>\nvec: what does |> do in elixir and what is <| in haskell").leaked


def test_a_role_on_its_own_line_leaks_and_a_word_does_not():
    assert parse(f"assistant\n{GOOD}").leaked
    assert not parse("lex: assistant manager duties\nvec: what does an assistant do").leaked


def test_thinking_is_seen_and_taken_out():
    assert parse(f"<think>lex: no</think>\n{GOOD}") == Expansion(parse(GOOD).lines, thought=True)
    assert not parse(f"<think>\n\n</think>\n\n{GOOD}").thought


@pytest.mark.parametrize(
    "text", ["", "\n\n", "lex:" * 5000, "lex: a\n" * 200, "hyde: " + "x" * 5000, "\u202elex: שלום", "\ud800"]
)
def test_odd_texts_parse(text):
    assert isinstance(parse(text), Expansion)


@settings(deadline=None)
@given(
    st.text() | st.lists(st.sampled_from(["lex:", "vec: ", "hyde: x", "\n", "<think>", "</think>", "中"])).map("".join)
)
def test_any_text_parses_and_its_lines_read_back(text):
    expansion = parse(text)
    again = parse(expansion.to_text())
    assert again.lines == expansion.lines or expansion.leaked or expansion.thought or "<" in text


def test_the_prompt_is_one_user_message():
    assert build_messages("redis\n ｃａｃｈｅ") == [
        {"role": "user", "content": "/no_think Expand this search query: redis cache"}
    ]
    assert build_sft_messages("a", GOOD)[1] == {"role": "assistant", "content": GOOD}
