"""The quick start's own commands: preparing a BEIR set, serving recorded rewrites, recording costs, saying no early."""

import json
import socket
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from examples.make_tiny_model import frequent_words, make_tokenizer
from examples.prepare_beir import KeywordBaseline, is_held_out, main, words
from examples.run_stage import Estimate, progress_of, record_cost
from examples.serve_recorded_baseline import create_app
from reward.records.files import BadInput
from tests.support.commands import run_command, run_python


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "beir"
    folder.mkdir()
    write_jsonl(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "text": f"第{i}篇 糖尿病患者的饮食建议与用药说明"} for i in range(40)],
    )
    queries = [{"_id": f"q{i}", "text": "糖尿病怎么吃药", "descriptions": ["我妈妈 血糖\n很高"]} for i in range(40)]
    write_jsonl(folder / "queries.jsonl", [*queries, {"_id": "unjudged", "text": "高血压"}])
    lines = ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(40))]
    (folder / "qrels.tsv").write_text("\n".join(lines))
    return folder


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_prepare_beir_splits_and_keeps_context(beir, tmp_path):
    out = tmp_path / "out"
    assert main(["--beir", str(beir), "--out", str(out), "--warm-up-tasks", "5"]) == 0
    train, held_out = rows_of(out / "queries_train.jsonl"), rows_of(out / "queries_heldout.jsonl")
    assert len(train) + len(held_out) == 40 and held_out
    assert all(is_held_out(row["query_id"]) for row in held_out)
    assert not any(is_held_out(row["query_id"]) for row in train)
    assert train[0]["history_context"] == "用户: 我妈妈 血糖 很高"
    assert len(rows_of(out / "baseline_rewrites.jsonl")) == 40
    warm_up = rows_of(out / "warm_up_tasks.jsonl")
    assert len(warm_up) == 5 and all(row["success"] and 0 < len(row["rewritten_query"]) <= 30 for row in warm_up)


def test_frequent_words_become_tokens_and_every_text_survives():
    texts = ["糖尿病怎么治疗", "糖尿病的治疗方法", "治疗糖尿病"]
    words_of_texts = frequent_words(texts, 2)
    assert {word for word, _ in words_of_texts} == {"糖尿病", "治疗"}
    tokenizer = make_tokenizer(texts, ["user\n"], words_of_texts)
    assert tokenizer.convert_ids_to_tokens(tokenizer("user\n治疗糖尿病").input_ids) == ["user\n", "治疗", "糖尿病"]
    for text in ("糖尿病 hello 𠮷？", "<|im_start|>user\n怎么治疗<|im_end|>\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    ("damage", "words_of_error"),
    [
        (lambda d: (d / "qrels.tsv").unlink(), ["qrels.tsv"]),
        (lambda d: (d / "queries.jsonl").write_text('{"_id": "q0"}'), ["queries.jsonl", "row 1", "text"]),
        (lambda d: (d / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n"), ["no query"]),
    ],
)
def test_prepare_beir_says_what_is_wrong(beir, tmp_path, capsys, damage, words_of_error):
    damage(beir)
    assert main(["--beir", str(beir), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and all(word in error for word in words_of_error)


def test_keyword_baseline_prefers_rare_words_and_keeps_to_the_length():
    baseline = KeywordBaseline(["头痛 发烧", "头痛 咳嗽", "头痛 腹泻"])
    assert words("请问头痛怎么办") == ["头痛"]
    assert baseline.rewrite("吃什么药？", "请问头痛 腹泻", 8) == "吃什么药 腹泻"
    assert baseline.rewrite("吃什么药？", "头痛 腹泻", 30) == "吃什么药 头痛 腹泻"
    assert baseline.rewrite("头痛吃什么药", "头痛", 30) == "头痛吃什么药"  # nothing twice
    assert baseline.rewrite("？！", "", 30) == "？！"


def test_recorded_baseline_answers_what_was_recorded_and_nothing_else(tmp_path):
    recordings = tmp_path / "r.jsonl"
    write_jsonl(recordings, [{"query": "它咋吃", "history_context": "用户: 鱼油", "rewritten_query": "鱼油 用法用量"}])
    client = TestClient(create_app(recordings))
    answer = client.post("/api/rewrite_query", json={"query": "它咋吃", "history": "用户: 鱼油", "thought": ""})
    assert answer.json() == {"rewritten_query": "鱼油 用法用量"}
    assert client.post("/api/rewrite_query", json={"query": "它咋吃", "history": ""}).status_code == 404


def test_recorded_baseline_names_the_bad_row(tmp_path):
    recordings = tmp_path / "r.jsonl"
    write_jsonl(recordings, [{"query": "a", "rewritten_query": "b"}, {"query": "c"}])
    with pytest.raises(BadInput, match="row 2: rewritten_query"):
        create_app(recordings)


def test_progress_of_a_trainer_line():
    line = "(TaskRunner pid=1) step:12 - avg_reward:0.25 - 8b_win_rate:0.5 - actor/pg_loss:0.1 - training/epoch:0"
    assert progress_of(line) == "step   12  reward 0.250  win rate 0.500"
    assert progress_of("step:3 - val/loss:0.1") is None
    assert progress_of("Loading weights") is None


def test_a_skipped_stage_keeps_the_cost_of_the_run_that_did_it(tmp_path):
    costs = tmp_path / "costs.json"
    record_cost(costs, "sft", 100.0, 2.0, keep_below=8.0)
    record_cost(costs, "sft", 3.0, 0.1, keep_below=8.0)
    assert json.loads(costs.read_text())["sft"] == {"seconds": 100.0, "peak_gb": 2.0}


def test_a_failing_stage_passes_its_status_on(tmp_path):
    command = [sys.executable, "-c", "import sys; print('last words'); sys.exit(7)"]
    stage = ["--name", "x", "--costs", str(tmp_path / "c.json"), "--trainer-log", str(tmp_path / "x.log")]
    result = run_python("-m", "examples.run_stage", *stage, "--", *command)
    assert result.returncode == 7 and "last words" in result.stderr
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--nonsense"], "--nonsense"),
        (["--steps"], "--steps"),
        (["--algorithm", "dpo"], "dpo"),
        (["--beir", "/no"], "/no"),
        (["--judge", "m"], "--judge needs --without-qrels"),
        (["--without-qrels", "--judge"], "--judge"),
        (["--without-qrels", "--judge", "no/model"], "no/model"),
        (["--without-qrels", "--judge", "http://127.0.0.1:9/v1"], "no model's folder"),
    ],
)
def test_quickstart_refuses_bad_options_at_once(arguments, word):
    result = run_command("bash", "examples/quickstart.sh", *arguments)
    assert result.returncode == 2 and word in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.full
def test_quickstart_names_a_taken_port_and_leaves_nothing_running(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = ["bash", "examples/quickstart.sh", "--out", str(tmp_path / "out"), "--baseline-port", str(port)]
        result = run_command(*command)
    assert result.returncode == 1
    assert f"port {port}" in result.stderr
    assert not run_command("pgrep", "-f", str(tmp_path)).stdout


def test_the_time_that_is_left_is_said_once():
    timed = Estimate(20)
    assert timed.after("Ray started", 5.0) is None
    said = timed.after("step:2 - avg_reward:0.1 - timing_s/step:30.0", 9.0)
    assert said == "30.0 s a step: about 9 min for the 18 steps that are left"
    assert timed.after("step:3 - avg_reward:0.1 - timing_s/step:30.0", 39.0) is None
    # Without a time of its own a step is timed by the next; a validation in between is no step.
    untimed = Estimate(10)
    assert untimed.after("step:1 - train/loss:2.0 - train/lr:1e-5", 100.0) is None
    assert untimed.after("step:1 - val/loss:2.0", 101.0) is None
    assert untimed.after("step:2 - train/loss:2.0", 160.0) == "60.0 s a step: about 8 min for the 8 steps that are left"
