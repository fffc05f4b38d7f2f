"""Tables that a tool has flattened out of a log: Kibana, pandas' json_normalize, Power Query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from data_prep.readers.sources import Sources
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

Q, R = "鱼油怎么吃", "鱼油 服用方法"
REQUIRED = ("original_query", "rewritten_query", "success")


def read(path: Path, *rows: str, **headings: str) -> list[dict[str, Any]]:
    if path.suffix == ".xlsx":
        book = Workbook()
        for row in rows:
            book.active.append(row.split(","))
        book.save(path)
    else:
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    sources = Sources([path], SourceSettings(headings=headings), REQUIRED)
    return [row for batch in sources.batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
@pytest.mark.parametrize(
    "headings",
    [
        "payload.query,response.rewritten_query,response.success",
        "_source.payload.query,_source.response.rewritten_query,_source.response.success",
        "Column1.Payload.Query,Column1.response.data.rewritten_query,success",
        "request.body.query,data.response.rewrite,是否成功",
    ],
)
def test_headings_of_a_flattened_log_are_read_by_the_rule_for_keys(tmp_path: Path, name: str, headings: str) -> None:
    rows = read(tmp_path / name, headings, f"{Q},{R},true", headings, f"{Q},{R},true")
    assert [(row["original_query"], row["rewritten_query"], row["success"]) for row in rows] == [(Q, R, True)] * 2


def test_a_heading_without_envelopes_counts_and_an_answers_query_is_no_question(tmp_path: Path) -> None:
    headings = "response.query,query,payload.query,response.rewritten_query,success"
    assert [row["original_query"] for row in read(tmp_path / "a.csv", headings, f"答,{Q},壳,{R},true")] == [Q]
    headings = "response.query,payload.query,payload.user_profile,response.user_profile,rewrite,success"
    row = read(tmp_path / "a.csv", headings, f"答,{Q},旧,45岁,{R},true")[0]
    assert (row["original_query"], row["user_profile"]) == (Q, "45岁")


def test_two_places_of_one_rank_and_unknown_envelopes_name_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"two columns mean original_query: 'payload.query' and 'request.query'"):
        read(tmp_path / "a.csv", "payload.query,request.query,rewrite,success", "a,b,c,true")
    with pytest.raises(BadInput, match=r"no column original_query .*sources.headings can say"):
        read(tmp_path / "a.csv", "hits.query,rewrite,success", "a,b,true")
    own = {"payload_query": "original_query"}
    assert read(tmp_path / "a.csv", "payload_query,rewrite,success", f"{Q},{R},true", **own)[0]["refused"] == ""


def test_notes_in_brackets_of_any_kind_and_what_google_sheets_leaves(tmp_path: Path) -> None:
    headings = "原始查询（文本）,改写【必填】,是否成功[单选]"
    rows = read(tmp_path / "a.csv", headings, f"{Q},Loading...,是", f"{Q},#ERROR!,是", f"{Q},{R},是")
    assert [row["rewritten_query"] for row in rows] == ["", "", R]


def test_a_table_without_rewrites_or_outcomes_names_who_asks_for_them(tmp_path: Path) -> None:
    for headings in ("query,success", "query,rewrite"):
        with pytest.raises(BadInput, match=r"no column .*; python -m data_prep.fill_baseline asks"):
            read(tmp_path / "a.csv", headings, "a,true")
