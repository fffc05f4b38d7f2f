"""Logs with words before their JSON, and files of whole JSON documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.readers.log_file import read_logs
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

Q, R = "鱼油怎么吃", "鱼油 服用方法"
LINE = {"payload": {"query": Q}, "response": {"rewritten_query": R}}
FLAT = {"query": Q, "rewrite": R}
TS = "1700000000000000000"


def dumped(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def read(path: Path, text: str | bytes) -> tuple[list[dict[str, Any]], str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    notes: list[str] = []
    required = ("original_query", "rewritten_query")
    rows = [row for batch in read_logs(path, SourceSettings(), required, notes) for row in batch.to_pylist()]
    return rows, "\n".join(notes)


WORDS = (
    *("2026-11-01 12:00:01 INFO rewrite - ", "2026-11-01T12:00:01Z stdout F ", "[2026-11-01 12:00:01,123] [INFO] "),
    *("Nov  1 12:00:01 host rewrite[123]: ", "INFO:rewrite:", "web_1  | ", "{pod-1} "),
    '<134>1 2026-11-01T12:00:01Z host app 123 - [a b="c"] ',
)


@pytest.mark.parametrize("words", WORDS)
def test_words_before_the_json_are_passed_over_and_counted(tmp_path: Path, words: str) -> None:
    for written in (dumped(LINE), repr(LINE)):
        rows, notes = read(tmp_path / "a.log", f"{words}{written}\n{words}{written}\n")
        assert [(row["original_query"], row["rewritten_query"], row["refused"]) for row in rows] == [(Q, R, "")] * 2
        assert "words before the JSON of 2 lines passed over" in notes
        assert rows[0]["timestamp"].startswith("2026-11-01T12:00:01") or "2026" not in words


def test_the_words_may_be_in_a_shippers_envelope(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "a.log", dumped({"log": f"12:00:01 INFO - {dumped(LINE)}\n", "stream": "stdout"}))
    assert (rows[0]["original_query"], rows[0]["rewritten_query"]) == (Q, R)
    assert rows[0]["remarks"] == ["log: words before the JSON passed over"]


def test_a_torn_line_gives_no_inner_object(tmp_path: Path) -> None:
    line = dumped(LINE)
    rows, _ = read(tmp_path / "a.log", f'{line}\n{line[:30]}\n{line[12:]}\n"x": {{"query": "a"}}\nINFO {{}}\n')
    assert [bool(row["refused"]) for row in rows] == [False, True, True, True, True]
    assert not any(row["original_query"] for row in rows[1:])


DOCUMENTS: dict[str, object] = {
    "a list": [LINE, LINE],
    "Loki, pushed": {"streams": [{"stream": {"app": "x"}, "values": [[TS, dumped(LINE)], [TS, dumped(LINE)]]}]},
    "Loki, queried": {
        "data": {"resultType": "streams", "result": [{"stream": {}, "values": [[TS, dumped(LINE)]] * 2}]}
    },
    "Elasticsearch": {"took": 1, "hits": {"total": {"value": 2}, "hits": [{"_source": LINE}, {"_source": LINE}]}},
    "pandas, split": {"columns": ["query", "rewrite"], "index": [0, 1], "data": [[Q, R], [Q, R]]},
    "pandas, columns": {"query": {"0": Q, "1": Q}, "rewrite": {"0": R, "1": R}},
    "pandas, index": {"0": FLAT, "1": FLAT},
    "pandas, table": {"schema": {"fields": []}, "data": [FLAT, FLAT]},
    "Navicat": {"RECORDS": [FLAT, FLAT]},
    "Feishu": {"code": 0, "data": {"items": [{"fields": {"原始查询": Q, "改写": R}}] * 2, "total": 2}},
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("indent", [None, 2])
def test_documents_of_several_rows(tmp_path: Path, name: str, indent: int | None) -> None:
    rows, notes = read(tmp_path / "a.json", dumped(DOCUMENTS[name], indent))
    assert [(row["original_query"], row["rewritten_query"], row["refused"]) for row in rows] == [(Q, R, "")] * 2
    assert [row["row"] for row in rows] == [1, 2] and "row is the number of the item" in notes


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_objects_over_several_lines(tmp_path: Path, encoding: str) -> None:
    rows, _ = read(tmp_path / "a.json", (dumped(LINE, 2) + "\n" + dumped(LINE, 2)).encode(encoding))
    assert [row["original_query"] for row in rows] == [Q, Q]


def test_damage_costs_its_item_and_bytes_that_are_no_text_their_row(tmp_path: Path) -> None:
    whole = dumped(LINE, 1)
    rows, _ = read(tmp_path / "a.json", f"{whole}\n{whole[:40]}\n{whole}\n")
    assert [bool(row["refused"]) for row in rows] == [False, True, False]
    rows, _ = read(tmp_path / "a.json", dumped([LINE, LINE], 1)[:-60])
    assert [bool(row["refused"]) for row in rows] == [False, True] and "ends within an item" in rows[1]["refused"]
    line = dumped(LINE).encode()
    rows, _ = read(tmp_path / "a.json", b"[\n" + line + b",\n" + line.replace("鱼".encode(), b"\xff\xfe") + b"\n]")
    assert [bool(row["refused"]) for row in rows] == [False, True]


def test_a_line_that_holds_hits_stays_a_line(tmp_path: Path) -> None:
    line = {"query": Q, "rewritten_query": R, "data": [{"content": "甲"}, {"content": "乙"}]}
    rows, notes = read(tmp_path / "a.json", dumped(line))
    assert [row["original_query"] for row in rows] == [Q] and "data (a list of 2)" in notes


def test_lines_that_end_in_commas_and_a_torn_first_line(tmp_path: Path) -> None:
    line = dumped(LINE)
    assert [row["row"] for row in read(tmp_path / "a.log", f"{line},\n{line},\n")[0]] == [1, 2]
    rows, _ = read(tmp_path / "a.log", f'{{"payload": {{\n{line}\n{line}\n')
    assert [bool(row["refused"]) for row in rows] == [True, False, False]


def test_colours_of_a_terminal_and_flattened_keys(tmp_path: Path) -> None:
    flat = dumped({"payload.query": Q, "response.rewritten_query": R})
    for text in (f"\x1b[32m12:00 INFO\x1b[0m {dumped(LINE)}\x1b[0m\n", flat):
        rows, _ = read(tmp_path / "a.log", text)
        assert [(row["original_query"], row["rewritten_query"]) for row in rows] == [(Q, R)]


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no item"):
        read(tmp_path / "a.json", "[]")
