"""data_prep.optimise_expansion_prompt: GEPA finds the prompt that the rules like better; failures are no scores."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path

import pytest

from data_prep.expansions.teacher import system_prompt
from data_prep.optimise_expansion_prompt import main
from tests.data_prep.test_generate_expansions import GOOD, PRICE, profile, queries
from tests.support.loopback_llm import Fault, loopback_llm

needs_gepa = pytest.mark.skipif(util.find_spec("gepa") is None, reason="needs the extra gepa")
WEAK = "lex: information about\nvec: search for"
QUERIES = [f"redis cache node {word}" for word in ("ttl", "pool", "cluster", "pubsub", "eviction", "stream", "lock")]
BETTER = "Keep every term of the query in each line."


def answer(body: dict) -> str:
    system, user = (message["content"] for message in body["messages"])
    if "improve the instructions" in system:
        assert "Feedback" in user and "redis cache node" in user
        return f"```\n{BETTER}\n```"
    return GOOD if BETTER in system else WEAK


def run(folder: Path, expander: Path, asked: Path, *more: str) -> int:
    options = ["--queries", str(asked), "--expander", str(expander), "--language", "en", "--max-expansions", "30"]
    return main([*options, "--out", str(folder / "prompt.txt"), *more])


@needs_gepa
def test_a_better_prompt_is_found_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    with loopback_llm(answer) as url:
        expander, asked = profile(tmp_path, url), queries(tmp_path, *QUERIES, "鱼油怎么吃")
        assert run(tmp_path, expander, asked) == 0
        assert (tmp_path / "prompt.txt").read_text(encoding="utf-8").strip() == BETTER
        record = json.loads((tmp_path / "prompt.txt.json").read_text(encoding="utf-8"))
        assert record["best"] > record["first"] and record["candidates"][0]["system_prompt"] == system_prompt("en")
        assert not [body for body in url.requests if "鱼油怎么吃" in json.dumps(body, ensure_ascii=False)]
        before = len(url.requests)
        assert run(tmp_path, expander, asked) == 0 and len(url.requests) == before


@needs_gepa
def test_what_no_prompt_is_to_blame_for_ends_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = queries(tmp_path, *QUERIES)
    with loopback_llm(lambda body: Fault(status=500)) as url:
        assert run(tmp_path, profile(tmp_path, url), asked) == 2
        assert "error: expander: " in capsys.readouterr().err
    with loopback_llm(lambda body: answer(body) if "redis" in body["messages"][1]["content"][:20] else " ") as url:
        assert run(tmp_path, profile(tmp_path, url), asked) == 2
        assert "error: reflector: " in capsys.readouterr().err
    with loopback_llm(answer) as url:
        assert run(tmp_path, profile(tmp_path, url, price=PRICE), asked, "--max-cny", "0.001") == 2
        assert "budget" in capsys.readouterr().err
        assert run(tmp_path, profile(tmp_path, url), asked, "--max-cny", "1") == 2
        assert "names no price" in capsys.readouterr().err
        assert run(tmp_path, profile(tmp_path, url), queries(tmp_path, "鱼油怎么吃")) == 2
        assert "too few queries in en" in capsys.readouterr().err
    assert not (tmp_path / "prompt.txt").exists()


@pytest.mark.skipif(util.find_spec("gepa") is not None, reason="the extra gepa is installed")
def test_without_gepa_the_error_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, tmp_path / "x.yaml", queries(tmp_path, "redis")) == 2
    told = capsys.readouterr().err
    assert "pip install 'sales-rag-rewriter[gepa]'" in told and told.count("\n") == 1
