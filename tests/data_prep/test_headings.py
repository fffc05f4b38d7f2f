"""Which row holds the headings, what they mean, and which rows only repeat them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.bvt.queries import read_queries
from data_prep.rows.columns import ALIASES, COLUMNS
from data_prep.rows.headings import OtherHeadings, Repeats, find_headings, heading_key, known_names
from reward.settings.recipe import load_tenant

NAMES = known_names({"題幹": "original_query"}, ALIASES, COLUMNS)


@pytest.mark.parametrize(
    ("heading", "column"),
    [
        ("原始查詢", "original_query"),
        ("改寫查詢", "rewritten_query"),
        ("用戶畫像", "user_profile"),
        ("使用者畫像", "user_profile"),
        ("歷史對話", "history_context"),
        ("對話摘要", "history_summary"),
        ("召回數量", "recall_count"),
        ("時間戳記", "timestamp"),
        ("錯誤", "error"),
        ("TOP1 分數", "top1_score"),
        ("ＱＵＥＲＹ", "original_query"),
        ('\ufeff"Query"', "original_query"),
        ("题干", "original_query"),
    ],
)
def test_headings_are_understood_in_both_scripts(heading: str, column: str) -> None:
    assert NAMES[heading_key(heading)].column == column


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([["问题", "", ""], ["编号", "原始问题", "切片"], ["1", "q0", "a"]], 1),
        ([["问题"], ["导出时间 2026-01-02"], ["编号", "原始问题"], ["1", "q0"]], 2),
        ([["问题", "", "结果"], ["编号", "原始问题", "改写查询"]], 1),
        ([["编号", "查询"], ["1", "问题"], ["2", "改写"]], 0),
        ([["编号", "查询"], ["1", "鱼油"], ["编号", "查询", "切片"], ["2", "钙"]], 0),
        ([["query"], ["query"], ["鱼油"]], 0),
    ],
)
def test_the_row_that_names_most_columns_holds_the_headings(rows: list[list[str]], index: int) -> None:
    assert find_headings(rows, NAMES, ["original_query"]).index == index


def test_a_batch_test_asks_what_is_below_the_headings_of_a_group(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("问题,\n编号,原始问题\n1,鱼油怎么吃\n编号,原始问题\n2,钙片怎么吃\n", encoding="utf-8")
    queries = read_queries([path], load_tenant("fivedoctors"))
    assert [row.original_query for row in queries.rows] == ["鱼油怎么吃", "钙片怎么吃"]
    assert queries.notes == [f"{path}: 1 more headings in the middle: no rows"]


def test_what_repeats_the_headings() -> None:
    repeats = Repeats(NAMES, {"query_id": 0, "original_query": 1}, ["original_query"])
    assert repeats.is_one(["编号", "原始查詢", "x"]) and repeats.may_be_one("原始查詢")
    assert not repeats.is_one(["7", "问题"]) and not repeats.is_one(["编号", ""])
    for other in (["原始查询", "编号"], ["", "id", "query"]):
        with pytest.raises(OtherHeadings):
            repeats.is_one(other)
