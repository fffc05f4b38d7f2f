"""Logs whose query, rewrite and context are in the envelopes of services and log shippers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep import build_rl
from data_prep.readers.log_file import read_logs
from reward.settings.data import SourceSettings

Q, R, P = "鱼油怎么吃", "鱼油 服用方法", "45岁女性"
TOLD = {"rewritten_query": R, "user_profile": P}
ALL = {"query": Q, **TOLD}


def packed(value: object, times: int = 1) -> str:
    for _ in range(times):
        value = json.dumps(value, ensure_ascii=False)
    return str(value)


def read(path: Path, *lines: object, **paths: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    path.write_text("".join(packed(line) + "\n" for line in lines), encoding="utf-8")
    notes: list[str] = []
    rows = [row for batch in read_logs(path, SourceSettings(log_paths=paths), (), notes) for row in batch.to_pylist()]
    assert len(rows) == len(lines)
    return rows, notes


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


def chat(content: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


LINES: dict[str, object] = {
    "data with a response": {"data": {"query": Q, "response": TOLD}},
    "data with a packed response": {"data": {"query": Q, "response": packed(TOLD)}},
    "packed data with a response packed twice": {"data": packed({"query": Q, "response": packed(TOLD, 2)})},
    "request and result": {"request": {"query": Q}, "result": TOLD},
    "req and resp": {"req": {"body": packed({"query": Q})}, "resp": {"body": packed({"code": 0, "data": TOLD})}},
    "input and output, as Langfuse has it": {"input": {"query": Q}, "output": TOLD},
    "inputs and outputs, as LangSmith and Dify have it": {"inputs": {"query": Q}, "outputs": {"result": packed(TOLD)}},
    "a list of one": [{"payload": {"query": Q}, "response": [TOLD]}][0],
    "results, a list of one": {"payload": {"query": Q}, "results": [packed(TOLD)]},
    "a chat's answer": {"payload": {"query": Q}, "response": chat(packed(TOLD))},
    "a chat's answer in fences": {"payload": {"query": Q}, "response": chat(f"好的：\n```json\n{packed(TOLD)}\n```")},
    "a chat's answer behind thinking": {"query": Q, "response": chat(f"<think>用户…</think>\n{packed(TOLD)}")},
    "a chat's answer, packed as a whole": {"query": Q, "response": packed(chat(packed(TOLD)))},
    "Elasticsearch": {"_index": "rag", "_id": "1", "_source": {"payload": {"query": Q}, "response": TOLD}},
    "Elasticsearch, packed message": {"_source": {"message": packed({"payload": {"query": Q}, "response": TOLD})}},
    "Docker": {"log": packed({"payload": {"query": Q}, "response": TOLD}) + "\n", "stream": "stdout"},
    "Loki": {"labels": {"app": "rag"}, "line": packed({"query": Q, "response": TOLD})},
    "Filebeat": {"@timestamp": "2026-11-01T10:00:00.000Z", "host": {"name": "a"}, "message": packed(ALL)},
    "journald": {"MESSAGE": packed(ALL), "_PID": "1"},
    "Cloud Logging": {"jsonPayload": {"request": {"query": Q}, "response": TOLD}},
    "loguru": {"text": "…", "record": {"extra": ALL, "message": "served"}},
    "Serilog": {"Message": "served", "Properties": {}, "Data": ALL},
    "flattened": {"payload.query": Q, "response.rewritten_query": R, "response.user_profile": P},
    "flattened within": {"_source": {"payload.query": Q, "response.data.rewritten_query": R, "user_profile": P}},
    "all in the result": {"result": ALL},
    "all in the response": {"response": {"query": Q, "data": TOLD}},
    "other headings": {"data": {"用户问题": Q, "改写结果": R, "用户画像": P}},
    "context": {"query": Q, "rewritten_query": R, "context": {"user_profile": P, "history": "用户: 有鱼油吗"}},
    "packed context": {"payload": {"query": Q, "context": packed({"user_profile": P})}, "response": TOLD},
    "context in the answer": {"query": Q, "response": {"rewritten_query": R, "context": [{"user_profile": P}]}},
    "Python's literal": {"query": Q, "response": repr(TOLD)},
}


@pytest.mark.parametrize("shape", LINES)
def test_query_rewrite_and_profile_are_read_from_any_envelope(log: Path, shape: str) -> None:
    [row], _ = read(log, LINES[shape])
    assert row["refused"] == ""
    assert (row["original_query"], row["rewritten_query"], row["user_profile"]) == (Q, R, P)


@pytest.mark.parametrize("shape", LINES)
def test_lines_that_are_packed_as_a_whole_are_read_as_those_that_are_not(log: Path, shape: str) -> None:
    plain, _ = read(log, LINES[shape])
    for times in (1, 2):
        assert read(log, packed(LINES[shape], times))[0] == plain


def test_a_context_counts_where_the_line_itself_says_nothing(log: Path) -> None:
    said = [{"role": "user", "content": "有鱼油吗"}, {"role": "assistant", "content": "有的"}]
    context = {"user_profile": "旧", "history_summary": "问过鱼油", "history": said, "query": "上一个问题"}
    rows, _ = read(
        log,
        {"query": Q, "user_profile": P, "context": context},
        {"query": Q, "user_profile": "", "context": packed(context)},
        {"context": context},
    )
    assert [row["user_profile"] for row in rows] == [P, "旧", ""]
    assert [row["history_summary"] for row in rows] == ["问过鱼油", "问过鱼油", ""]
    assert [row["history_context"] for row in rows[:2]] == ["用户: 有鱼油吗\n助手: 有的"] * 2
    assert rows[2]["refused"].startswith("original_query: nothing at")


def test_the_side_of_the_question_and_that_of_the_answer(log: Path) -> None:
    rows, _ = read(
        log,
        {"result": {"query": "回显", "rewritten_query": R}, "request": {"query": Q, "rewritten_query": "传入"}},
        {"request": {"text": Q}, "response": {"query": "可能是改写"}},
    )
    assert (rows[0]["original_query"], rows[0]["rewritten_query"]) == (Q, R)
    assert rows[1]["original_query"] == "" and rows[1]["refused"].startswith("original_query: nothing at")


UNREAD: list[tuple[object, str]] = [
    ({"query": Q, "response": packed(TOLD)[:-9]}, "response: packed JSON cannot be read (Expecting"),
    ({"query": Q, "response": packed(TOLD)[:-9] + "…（已截断）"}, "response: packed JSON cannot be read (Expecting"),
    ({"query": Q, "data": {"output": packed([TOLD])[:-1]}}, "data.output: packed JSON cannot be read (Expecting"),
    ({"query": Q, "response": packed(packed(TOLD)[:-1])}, "response: packed JSON cannot be read ("),
    ({"query": Q, "response": R}, "response: a text, not read"),
    ({"query": Q, "context": "用户: 有鱼油吗"}, "context: a text, not read"),
    ({"payload": {"query": Q, "context": packed(TOLD)[:-5]}}, "payload.context: packed JSON cannot be read ("),
    ({"query": Q, "response": f"<think>想</think>{packed(TOLD)}"}, "response: <think> stripped"),
]


@pytest.mark.parametrize(("line", "remark"), UNREAD)
def test_what_of_an_envelope_is_not_read_is_remarked_on(log: Path, line: object, remark: str) -> None:
    rows, _ = read(log, line, {"query": Q, "response": TOLD})
    assert [row["refused"] for row in rows] == ["", ""]
    assert len(rows[0]["remarks"]) == 1 and rows[0]["remarks"][0].startswith(remark) and not rows[1]["remarks"]


def test_a_query_that_was_cut_off_is_refused_with_the_cause(log: Path) -> None:
    rows, _ = read(log, {"payload": packed({"query": Q})[:-3], "response": TOLD})
    assert "payload: packed JSON cannot be read (Unterminated string" in rows[0]["refused"]


def test_keys_that_no_column_takes_are_named(log: Path) -> None:
    line = {"query": Q, "latency_ms": 3, "empty": None, "response": {"rewrite_text": R, "code": 0}, "source": "x"}
    _, notes = read(log, line, line, {"query": Q, "response": chat(R), "results": [TOLD, TOLD]})
    assert notes == [
        f"{log}: keys not read: latency_ms, response.rewrite_text, response.code, results (a list of 2), "
        "response.choices[0].index, response.choices[0].message.role, response.choices[0].message.content"
    ]
    _, notes = read(log, {"query": Q} | {f"k{n}": n for n in range(20)})
    assert notes[0].endswith("k10, k11 and 8 more")


def test_text_that_the_tenant_names_is_read_and_not_remarked_on(log: Path) -> None:
    [row], notes = read(log, {"query": Q, "response": R}, rewritten_query=["response"])
    assert (row["rewritten_query"], row["remarks"], notes) == (R, [], [])


def test_the_funnel_names_what_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "service.jsonl"
    read(log, {"query": Q, "response": packed(TOLD)[:-9]}, {"query": "钙片什么时候吃", "response": TOLD})
    options = ["--tenant", "fivedoctors", "--out", str(tmp_path / "out"), "--split", "test"]
    assert build_rl.main(["--input", str(log), *options]) == 0
    shown = capsys.readouterr().out
    assert "passed over: response: packed JSON cannot be read: 1 (Expecting" in shown
    assert f"first in row 1 of {log}" in shown and "without a rewrite 1" in shown and "not read: " not in shown


def test_rows_without_a_time_are_counted_where_a_window_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "service.jsonl"
    times = ("2026-01-02T03:04:05Z", "2020-01-02T03:04:05Z", "昨天", None)
    queries = ("鱼油怎么吃", "钙片什么时候吃", "褪黑素有依赖吗", "孕妇能吃叶酸吗")
    said = zip(queries, times, strict=True)
    read(log, *({"payload": {"query": q}, "response": TOLD, "@timestamp": time} for q, time in said))
    options = ["--tenant", "fivedoctors", "--out", str(tmp_path / "out"), "--split", "test"]
    assert build_rl.main(["--input", str(log), *options]) == 0
    shown = capsys.readouterr().out
    assert "note: 2 rows of production logs record no time that is understood: kept, in no window" in shown
    assert "samples: test 3" in shown
