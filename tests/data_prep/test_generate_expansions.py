"""data_prep.generate_expansions: asked once, resumed, bounded by a budget; what is no expansion is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.expansions.teacher import load_teacher, system_prompt
from data_prep.generate_expansions import main
from reward.expansion.parser import parse
from reward.expansion.rules import score
from tests.support.loopback_llm import Fault, loopback_llm

GOOD = "lex: redis caching nodejs\nvec: how to cache responses with redis in a node service"
PRICE = {"currency": "CNY", "input": 1000.0, "cached_input": 1000.0, "output": 1000.0}


def profile(folder: Path, url: str, **more: Any) -> Path:
    path = folder / "expander.yaml"
    values = {"model": "m", "base_url": str(url), "attempts": 2, "timeout": 2, "backoff": [0, 0], **more}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def queries(folder: Path, *lines: str) -> Path:
    path = folder / "queries.txt"
    path.write_text("# Technical\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(folder: Path, expander: Path, asked: Path, *more: str) -> int:
    return main(["--queries", str(asked), "--expander", str(expander), "--out", str(folder / "made.jsonl"), *more])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_query_is_asked_once_in_its_language(tmp_path: Path) -> None:
    thinking = "<think>\n用户想……\n</think>\n"
    with loopback_llm(lambda body: thinking + GOOD) as url:
        expander = profile(tmp_path, url)
        asked = queries(tmp_path, "redis cache node", "Redis cache, node!", "鱼油 怎么吃，电话13812345678")
        assert run(tmp_path, expander, asked) == 0
        chats = [body for body in url.requests if body.get("messages")]
        assert sorted(body["messages"][0]["content"] for body in chats) == sorted(map(system_prompt, ("en", "zh")))
        assert "13812345678" not in json.dumps(chats, ensure_ascii=False)
        made = read(tmp_path / "made.jsonl")
        assert made[0]["query"] == "redis cache node" and len(made) == 2
        assert made[0]["output"] == [["lex", "redis caching nodejs"], ["vec", GOOD.partition("vec: ")[2]]]
        assert made[0]["generator"] == "m" and 0 < made[0]["score"] <= 1
        assert not read(tmp_path / "made.jsonl.quarantine.jsonl")
        # The same command again asks nobody and writes the same.
        before = (tmp_path / "made.jsonl").read_bytes()
        assert run(tmp_path, expander, asked) == 0 and (tmp_path / "made.jsonl").read_bytes() == before
        assert len([body for body in url.requests if body.get("messages")]) == 2


NO_EXPANSION = {
    "chat": ("Sure! Here are some ideas:\n" + GOOD, "a line without kind or text"),
    "lex alone": ("lex: redis", "no vec line"),
    "vec alone": ("vec: how to cache", "no lex line"),
    "kind without text": (GOOD + "\nhyde:", "a line without kind or text"),
    "two hydes": (GOOD + "\nhyde: a\nhyde: b", "more than 1 hyde"),
    "200 lines": (GOOD + "\nlex: x" * 200, "more than 3 lex"),
    "template": (GOOD + "<|im_end|>", "a piece of a chat template"),
    "refusal": ("I'm sorry, I cannot help.", "refused"),
    "empty": (" ", "empty"),
}


@pytest.mark.parametrize("case", NO_EXPANSION)
def test_an_answer_that_is_no_expansion_is_asked_again_and_then_named(case: str, tmp_path: Path) -> None:
    answer, reason = NO_EXPANSION[case]
    with loopback_llm(lambda body: GOOD if "good" in body["messages"][1]["content"] else answer) as url:
        assert run(tmp_path, profile(tmp_path, url), queries(tmp_path, "good query", "bad query")) == 0
        attempts = [body for body in url.requests if "bad" in json.dumps(body)]
        assert len(attempts) == (1 if case == "refusal" else 2)
    assert [row["query"] for row in read(tmp_path / "made.jsonl")] == ["good query"]
    [left_out] = read(tmp_path / "made.jsonl.quarantine.jsonl")
    assert left_out["query"] == "bad query" and reason in left_out["reason"]


def test_what_failed_is_asked_for_again_and_nothing_else(tmp_path: Path) -> None:
    down = True
    with loopback_llm(
        lambda body: Fault(status=500) if down and "two" in body["messages"][1]["content"] else GOOD
    ) as url:
        expander, asked = profile(tmp_path, url), queries(tmp_path, "query one", "query two")
        assert run(tmp_path, expander, asked) == 0 and len(read(tmp_path / "made.jsonl")) == 1
        down, before = False, len(url.requests)
        assert run(tmp_path, expander, asked) == 0 and len(read(tmp_path / "made.jsonl")) == 2
        assert ["two" in json.dumps(body) for body in url.requests[before:] if body.get("messages")] == [True]


def test_a_budget_holds_over_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback_llm(lambda body: GOOD) as url:
        expander, asked = profile(tmp_path, url, attempts=1), queries(tmp_path, *(f"query {n}" for n in range(6)))
        for _ in range(2):
            assert run(tmp_path, expander, asked, "--max-calls", "4") == 0
            assert "the budget is spent" in capsys.readouterr().out
            assert len(read(tmp_path / "made.jsonl")) == 4
        assert len([body for body in url.requests if body.get("messages")]) == 4
        assert run(tmp_path, expander, asked, "--max-cny", "1") == 2
        assert "names no price" in capsys.readouterr().err
        priced = profile(tmp_path, url, attempts=1, price=PRICE)
        assert run(tmp_path, priced, asked, "--ledger", str(tmp_path / "new.sqlite"), "--max-cny", "0.01") == 2
        assert "no query has an expansion; the first: " in capsys.readouterr().err


def test_a_least_score_sends_the_others_to_the_quarantine(tmp_path: Path) -> None:
    query, weak = "redis cache node", "lex: information about\nvec: redis cache node"
    low, high = (score(query, parse(text)).total for text in (weak, GOOD))
    least = round((low + high) / 2, 3)
    with loopback_llm(lambda body: weak if "weak" in body["messages"][1]["content"] else GOOD) as url:
        asked = queries(tmp_path, query, f"weak {query}")
        assert run(tmp_path, profile(tmp_path, url), asked, "--least-score", str(least)) == 0
    assert [row["query"] for row in read(tmp_path / "made.jsonl")] == [query]
    [left_out] = read(tmp_path / "made.jsonl.quarantine.jsonl")
    assert f"is below {least:g}" in left_out["reason"] and left_out["expansion"] == weak


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with loopback_llm(lambda body: GOOD) as url:
        expander, asked = profile(tmp_path, url), queries(tmp_path, "redis")
        long = tmp_path / "long.jsonl"
        long.write_text(json.dumps({"query": "长" * 501}) + "\n", encoding="utf-8")
        typed = tmp_path / "typed.jsonl"
        typed.write_text('{"query": 5}\n', encoding="utf-8")
        empty = tmp_path / "empty.txt"
        empty.write_text("# nothing\n\n", encoding="utf-8")
        for arguments, problem in (
            ((expander, long), "row_1: query: 501 characters, 500 at most"),
            ((expander, typed), "row 1: query: missing, empty, or no text"),
            ((expander, empty), "no query"),
            ((expander, tmp_path / "none.txt"), "no such file"),
            ((tmp_path / "nobody.yaml", asked), "known profiles: deepseek_v3, self_hosted"),
            ((expander, asked, "--prompt", str(empty.with_name("none"))), "no such file"),
            ((expander, asked, "--model", str(tmp_path)), "name either --expander or --model"),
            ((expander, asked, "--least-score", "2"), "outside [0, 1]"),
            ((expander, asked, "--max-calls", "-1"), "must be 0 or more"),
        ):
            assert run(tmp_path, *arguments) == 2  # type: ignore[arg-type]
            told = capsys.readouterr().err
            assert problem in told and told.count("\n") == 1, told
        assert not [body for body in url.requests if body.get("messages")]
    assert run(tmp_path, expander, asked) == 2
    assert "is not reachable" in capsys.readouterr().err


def test_the_profiles_that_ship_can_be_read() -> None:
    assert {load_teacher(name).model for name in ("deepseek_v3", "self_hosted")} == {"deepseek-chat", "Qwen/Qwen3-8B"}


@pytest.mark.slow
def test_a_model_on_this_machine_is_asked_and_its_prose_is_no_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random tiny model writes no expansion: every query is named, no draw is left beside the output."""
    from examples.make_tiny_model import main as make_tiny_model  # imports transformers

    said = "把查询写成带类型的行。"
    (tmp_path / "prompt.txt").write_text(said, encoding="utf-8")
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": f"{said} redis cache node 鱼油怎么吃"}) + "\n", encoding="utf-8")
    model, out = tmp_path / "model", tmp_path / "made.jsonl"
    size = ["--hidden", "64", "--layers", "1"]
    assert make_tiny_model(["--tenant", "fivedoctors", "--text", str(text), "--out", str(model), *size]) == 0
    capsys.readouterr()
    asked = queries(tmp_path, "redis cache node", "鱼油怎么吃")
    prompted = ["--queries", str(asked), "--prompt", str(tmp_path / "prompt.txt"), "--out", str(out)]
    assert main([*prompted, "--model", str(model)]) == 2
    told = capsys.readouterr().err
    assert "error: no query has an expansion; the first: expansion has " in told
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("made")]
    assert main([*prompted, "--model", str(tmp_path / "none")]) == 2
    assert "error: --model: " in capsys.readouterr().err
