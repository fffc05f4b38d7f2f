"""Reading exports: columns by name, rows by number, bad rows quarantined, bad files named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from data_prep.bvt_row import COLUMNS, EXCEL_CELL_LIMIT, BvtRow
from data_prep.bvt_workbook import hits_cell, write_workbook
from data_prep.read_sources import read_rows
from reward.records import BadInput, Hit

REQUIRED = ("original_query", "rewritten_query", "success")


def test_chinese_headings_below_a_title_row(tmp_path: Path) -> None:
    path = tmp_path / "导出.xlsx"
    cells = [
        ["BVT 测试结果", "", "", "", "", ""],
        ["是否成功", " 原始查询", "改写查询", "top1分数", "召回结果", "备注"],
        ["是", "鱼油怎么吃", "鱼油的服用方法", 0.9, '[{"content": "鱼油", "reranker_score": 0.9, "rank": 1}]', "x"],
        ["", "", "", "", "", ""],
        ["失败", 12345, "", "", "", ""],
        [True, "钙片", "钙片功效", "0.7", "", ""],
    ]
    pd.DataFrame(cells).to_excel(path, header=False, index=False, engine="xlsxwriter")
    source = read_rows(path, REQUIRED)
    assert not source.quarantined
    assert [(row.number, row.original_query, row.success) for row in source.rows] == [
        (3, "鱼油怎么吃", True),
        (5, "12345", False),
        (6, "钙片", True),
    ]
    assert source.rows[0].recall_results == (Hit(content="鱼油", reranker_score=0.9),)
    assert (source.rows[2].top1_score, source.rows[1].top1_score) == (0.7, None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030"])
def test_csv_as_excel_saves_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "导出.csv"
    path.write_text('原始查询,改写查询,是否成功\n"鱼油\n怎么吃",鱼油,TRUE\n钙片,钙,0\n', encoding=encoding)
    rows = read_rows(path, REQUIRED).rows
    assert [(r.number, r.original_query, r.success) for r in rows] == [(2, "鱼油\n怎么吃", True), (3, "钙片", False)]


def test_bad_rows_are_quarantined_with_row_and_reason(tmp_path: Path) -> None:
    good = {"original_query": "鱼油", "rewritten_query": "鱼油功效", "success": True}
    lines = [
        json.dumps(good),
        "{not json",
        json.dumps(good | {"original_query": "\u200b "}),
        json.dumps(good | {"success": "也许"}),
        json.dumps(good | {"top1_score": "高"}),
        json.dumps(good | {"recall_results": '[{"score": 1}]'}),
        json.dumps(good | {"recall_results": "[{'content': 1}]"}),
        json.dumps(good | {"original_query": {"a": 1}}),
        json.dumps(good | {"original_query": "\ud800"}),
        "[1]",
        "",
        json.dumps(good | {"原始查询": "两个"}),
        json.dumps(good | {"recall_count": -1}),
    ]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    source = read_rows(path, REQUIRED)
    assert [row.number for row in source.rows] == [1]
    reasons = {q.row: q.reason for q in source.quarantined}
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]
    assert source.rows_in == 12
    assert all(q.file == str(path) for q in source.quarantined)
    expected = {
        3: "original_query: empty",
        4: "success: neither true nor false: '也许'",
        5: "top1_score: not a number: '高'",
        8: "original_query: expected text, found dict",
    }
    assert {row: reasons[row] for row in expected} == expected
    assert reasons[6].startswith("recall_results: a hit's content") and reasons[7].startswith(
        "recall_results: not JSON"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.xlsx", None, "no such file"),
        ("empty.xlsx", b"", "the file is empty"),
        ("text.xlsx", b"hello", "not a readable workbook"),
        ("table.pdf", b"%PDF", "expected .xlsx, .xls, .csv or .jsonl"),
        ("blank.csv", b"\n , \n", "the file is empty"),
        ("bytes.csv", b"\xff\xff", "neither UTF-8 nor GB18030 text"),
        ("headings.csv", b"original_query,rewritten_query,success\n", "no row below the headings"),
        ("lacks.csv", b"original_query,success\na,1\n", "no column rewritten_query (columns: original_query, success)"),
        ("twice.csv", b"query,original_query,rewritten_query,success\na,b,c,1\n", "two columns mean original_query"),
        ("lacks.jsonl", b'{"original_query": "a", "success": 1}', "no column rewritten_query"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput) as problem:
        read_rows(path, REQUIRED)
    assert str(problem.value).startswith(f"{path}: {message}") and "\n" not in str(problem.value)


def test_workbook_round_trip_keeps_every_field(tmp_path: Path) -> None:
    row = BvtRow(
        number=2,
        original_query="=HYPERLINK(1)",
        user_profile="35岁",
        history_summary="问过鱼油",
        rewritten_query="鱼油 0.5g",
        recall_results=(Hit(content="甲\n乙", score=0.1, reranker_score=0.75, doc_id="d1"), Hit(content="丙")),
        recall_count=2,
        top1_score=0.75,
        avg_top3_score=0.375,
        success=True,
        query_id="0042",
        history_context="用户: 你好\n助手: 您好",
        slices=("新", "难"),
    )
    write_workbook(tmp_path / "out.xlsx", [row])
    assert read_rows(tmp_path / "out.xlsx", COLUMNS).rows == [row]


def test_recall_results_beyond_the_limit_of_a_cell_stay_json() -> None:
    hits = [Hit(content="长" * 20_000, reranker_score=0.9, doc_id=f"d{i}") for i in range(5)]
    cell = hits_cell(hits)
    assert len(cell) < EXCEL_CELL_LIMIT
    assert [hit["doc_id"] for hit in json.loads(cell)] == ["d0", "d1", "d2", "d3", "d4"]


def test_recall_results_that_another_writer_cut_off_do_not_cost_the_row(tmp_path: Path) -> None:
    cut_off = json.dumps([{"content": "长" * 40_000}], ensure_ascii=False)[:EXCEL_CELL_LIMIT]
    line = {"original_query": "鱼油", "rewritten_query": "鱼油", "success": True, "recall_results": cut_off}
    (tmp_path / "a.jsonl").write_text(json.dumps(line), encoding="utf-8")
    source = read_rows(tmp_path / "a.jsonl", REQUIRED)
    assert not source.quarantined and source.rows[0].recall_results == ()
