"""evaluation.expansions: by category, of a file or a model, with the prompt and the rules of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.expansion_data import main as expansion_data
from data_prep.expansions.queries import read_expansions, read_queries
from evaluation.expansion_set import built_in
from evaluation.expansions import main
from export.llama_cpp.prompts import verification_queries
from reward.expansion.parser import parse
from reward.expansion.prompt import TEMPLATE, build_messages
from reward.expansion.rules import score
from reward.records.files import BadInput
from reward.settings.recipe import Language

GOOD = "lex: redis caching nodejs\nvec: how to cache responses with redis in a node service"
HOSTILE = {
    "empty": "",
    "blank lines": "\n\n \n",
    "no kind": "Here you go:\n" + GOOD,
    "unknown kind": GOOD + "\nsql: select 1",
    "200 lines": "\n".join(f"lex: redis {n}" for n in range(200)),
    "long hyde": GOOD + "\nhyde: " + "长" * 5000,
    "mixed languages": "lex: redis 缓存 кэш\nvec: كيف أخزن redis キャッシュ",
    "right to left": "lex: \u202eredis\u202c ذاكرة\nvec: زمن الانتهاء",
    "template": GOOD + "<|im_end|>",
    "thinking": "<think>redis</think>" + GOOD,
    "controls": "lex: a\x00b\x1b[31m\nvec: c\u200bd",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def evaluate(folder: Path, file: Path, *more: str) -> dict[str, Any]:
    out = folder / "result.json"
    assert main(["--file", str(file), "--out", str(out), *more]) == 0
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("preset", ["rules-v1", "rules-v2"])
def test_a_file_is_scored_as_in_training_by_category(tmp_path: Path, preset: str) -> None:
    rows = [
        {"id": "a", "query": "redis cache node", "category": "tech", "expansion": GOOD},
        {"query": "redis cache node", "category": "tech", "expansion": "I cannot"},
        {"query": "redis cache node", "output": [line.split(": ", 1) for line in GOOD.splitlines()]},
        *({"query": "redis cache node", "category": "hostile", "expansion": text} for text in HOSTILE.values()),
    ]
    found = evaluate(tmp_path, write(tmp_path / "e.jsonl", *rows), "--preset", preset)
    totals = [score("redis cache node", parse(text), preset).total for text in (GOOD, "I cannot", GOOD)]  # type: ignore[arg-type]
    assert [row["score"] for row in found["rows"][:3]] == [round(total, 6) for total in totals]
    assert found["categories"]["tech"]["mean"] == pytest.approx(sum(totals[:2]) / 2, abs=1e-4)
    assert found["categories"]["tech"]["valid"] == 0.5 and found["categories"][""]["count"] == 1
    assert found["all"]["count"] == len(rows) and found["categories"]["hostile"]["count"] == len(HOSTILE)
    assert found["rows"][1]["deductions"] and all(0 <= row["score"] <= 1 for row in found["rows"])
    assert (found["preset"], found["prompt"]) == (preset, TEMPLATE)


def test_verbose_shows_lines_and_deductions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "e.jsonl", *({"query": "redis", "expansion": text} for text in HOSTILE.values()))
    evaluate(tmp_path, file)
    assert "lex: redis 7" not in capsys.readouterr().out
    found = evaluate(tmp_path, file, "--verbose", "--preset", "rules-v1")
    told = " ".join(capsys.readouterr().out.split())
    assert "lex: redis 7" in told and "not typed: sql: select 1" in told
    assert "\x1b" not in told and "\u202e" not in told and "⟨U+202E⟩" in told
    for row in found["rows"]:
        for deduction in row["deductions"]:
            assert deduction.split()[0] in told


def test_queries_come_in_categories_from_three_shapes(tmp_path: Path) -> None:
    expected = [("auth", "Short"), ("cors error fix", "Errors"), ("鱼油", "Errors")]
    text, lines, tree = tmp_path / "q.txt", tmp_path / "q.jsonl", tmp_path / "q.yaml"
    text.write_text("# Short\n# (one word)\nauth\n\n# Errors\ncors error fix\n鱼油\n", encoding="utf-8")
    write(lines, *({"query": query, "category": category} for query, category in expected))
    tree.write_text(
        yaml.safe_dump({"Short": ["auth"], "Errors": ["cors error fix", "鱼油"]}, sort_keys=False), encoding="utf-8"
    )
    for file in (text, lines, tree):
        assert [(one.query, one.category) for one in read_queries(file)] == expected


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_built_in_set_has_32_queries_in_8_categories(language: Language) -> None:
    asked = built_in(language)
    assert len({one.query for one in asked}) == len({one.id for one in asked}) == 32
    assert len({one.category for one in asked}) == 8


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, good = str(tmp_path / "o.json"), write(tmp_path / "good.jsonl", {"query": "a", "expansion": GOOD})
    for name, rows, problem in (
        ("query", [{"query": " ", "expansion": GOOD}], "row 1: query: missing, empty, or no text"),
        ("both", [{"query": "a"}], "row 1: neither expansion (a text) nor output (lines)"),
        ("shape", [{"query": "a", "output": ["lex: x"]}], "row 1: output: each line must be [kind, text]"),
        ("type", [{"query": "a", "expansion": 5}], "row 1: neither expansion"),
    ):
        assert main(["--file", str(write(tmp_path / f"{name}.jsonl", *rows)), "--out", out]) == 2
        told = capsys.readouterr().err
        assert problem in told and told.count("\n") == 1
    queries = tmp_path / "q.yaml"
    queries.write_text("tech: redis\n", encoding="utf-8")
    for arguments, problem in (
        (["--file", str(tmp_path / "none.jsonl"), "--out", out], "no such file"),
        (["--file", str(good), "--out", str(tmp_path / "o.txt")], "--out must end in .json"),
        (["--file", str(good), "--model", "m", "--out", out], "name either --model or --file"),
        (["--out", out], "name either --model or --file"),
        (["--file", str(good), "--queries", str(queries), "--out", out], "the queries of --file are its own"),
        (["--model", str(tmp_path), "--queries", str(queries), "--out", out], "tech: expected a list of queries"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert problem in told and told.count("\n") == 1


def test_training_evaluation_and_serving_have_one_prompt(tmp_path: Path) -> None:
    """What SFT and RL read, what evaluation sends and what the export verifies: the messages of one function."""
    query = "鱼油  怎么吃？"
    rows = [{"query": f"{query} {n}", "output": [["lex", "鱼油 用量"], ["vec", "鱼油每天吃几粒"]]} for n in range(40)]
    assert expansion_data(["split", str(write(tmp_path / "d.jsonl", *rows)), "--out", str(tmp_path / "data")]) == 0
    queries = [json.loads(line)["query"] for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    expected = [build_messages(query) for query in queries]
    assert all(len(messages) == 1 and messages[0]["role"] == "user" for messages in expected)
    sft = pq.read_table(tmp_path / "data" / "sft_train.parquet").to_pylist()
    assert [row["messages"][:-1] for row in sft] == expected
    rl = pq.read_table(tmp_path / "data" / "rl_train.parquet").to_pylist()
    assert [row["prompt"] for row in rl] == expected
    asked = tmp_path / "queries.txt"
    asked.write_text("\n".join(queries), encoding="utf-8")
    assert verification_queries(asked) == expected[:24]


@pytest.mark.slow
def test_a_model_is_asked_with_that_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.make_tiny_model import main as make_tiny_model  # imports transformers

    text = write(tmp_path / "text.jsonl", {"text": TEMPLATE.format(query="redis cache 鱼油怎么吃")})
    model = tmp_path / "model"
    size = ["--hidden", "64", "--layers", "1"]
    assert make_tiny_model(["--tenant", "fivedoctors", "--text", str(text), "--out", str(model), *size]) == 0
    queries = tmp_path / "q.txt"
    queries.write_text("# tech\nredis cache\n# health\n鱼油怎么吃\n", encoding="utf-8")
    out = tmp_path / "result.json"
    asked = ["--model", str(model), "--queries", str(queries), "--out", str(out), "--max-new-tokens", "16"]
    assert main(asked) == 0, capsys.readouterr().err
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found["categories"]) == {"tech", "health"} and found["all"]["count"] == 2
    assert found["source"]["max_new_tokens"] == 16 and 0 < found["source"]["tokens"] <= 16


def test_a_result_is_read_again_as_what_the_system_wrote(tmp_path: Path) -> None:
    file, out = tmp_path / "made.jsonl", tmp_path / "scored.json"
    file.write_text(json.dumps({"original_query": "redis cache", "sample_id": "q1", "expansion": GOOD}))
    assert main(["--file", str(file), "--out", str(out)]) == 0
    (again,) = read_expansions(out)
    assert (again.asked.id, again.asked.query) == ("q1", "redis cache")
    assert again.expansion == read_expansions(file)[0].expansion
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(BadInput, match=r"other\.json: no result"):
        read_expansions(tmp_path / "other.json")
