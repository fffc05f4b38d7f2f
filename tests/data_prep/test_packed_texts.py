"""JSON in the place of a rewrite or a query is no text to train on: what it holds is taken, or its row refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from data_prep.readers.csv_file import read_csv
from data_prep.readers.log_file import read_logs
from reward.settings.data import SourceSettings

TOLD = json.dumps({"rewritten_query": "鱼油 用法", "user_profile": "女"}, ensure_ascii=False)
MEANT = [
    TOLD,
    json.dumps(TOLD),
    f"[{TOLD}]",
    f"```json\n{TOLD}\n```",
    f"好的：\n```\n{TOLD}\n```",
    f"<think>想一想</think>\n{TOLD}",
    "{'rewritten_query': '鱼油 用法'}",
    '{"改写": "鱼油 用法"}',
    '{"text": "鱼油 用法", "score": 0.9}',
]
REFUSED = [
    (TOLD[:-20], "rewritten_query: JSON that cannot be read ("),
    ('{"answer": "每日一粒"}', "rewritten_query: JSON that holds no such text"),
]


def rows(path: Path, *rewrites: str) -> list[dict[str, object]]:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("query", "rewritten_query"), *(("鱼油怎么吃", one) for one in rewrites)])
        batches = read_csv(path, SourceSettings(), ("original_query",))
    else:
        lines = ({"payload": {"query": "鱼油怎么吃"}, "response": {"rewritten_query": one}} for one in rewrites)
        path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        batches = read_logs(path, SourceSettings(), ())
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["a.csv", "a.log"])
def test_the_text_within_is_taken_and_counted(tmp_path: Path, name: str) -> None:
    found = rows(tmp_path / name, *MEANT, "鱼油 {每日} 用法")
    assert [row["refused"] for row in found] == [""] * len(found)
    assert [row["rewritten_query"] for row in found] == ["鱼油 用法"] * len(MEANT) + ["鱼油 {每日} 用法"]
    assert all("rewritten_query: taken out of JSON" in row["remarks"] for row in found[:-1])  # type: ignore[operator]
    assert "rewritten_query: <think> stripped" in found[5]["remarks"]  # type: ignore[operator]
    assert not found[-1]["remarks"]


@pytest.mark.parametrize("name", ["a.csv", "a.log"])
@pytest.mark.parametrize(("rewrite", "reason"), REFUSED)
def test_other_json_is_refused(tmp_path: Path, name: str, rewrite: str, reason: str) -> None:
    [row] = rows(tmp_path / name, rewrite)
    assert str(row["refused"]).startswith(reason) and row["rewritten_query"] == ""


def test_a_query_that_is_json(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    lines = [
        {"query": '{"text": "鱼油怎么吃"}'},
        {"query": '{"a": 1}'},
        {"query": '{"text": "鱼'},
        {"query": "[表情] {x"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = [row for batch in read_logs(path, SourceSettings(), ()) for row in batch.to_pylist()]
    assert [row["original_query"] for row in found] == ["鱼油怎么吃", "", "", "[表情] {x"]
    assert [bool(row["refused"]) for row in found] == [False, True, True, False]
