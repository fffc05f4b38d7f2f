"""One meaning of missing: for log lines, CSV cells and workbook cells."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from data_prep.readers.log_file import read_logs
from data_prep.rows.cells import parse_columns
from data_prep.rows.missing import is_missing, without_missing
from reward.settings.data import SourceSettings

MISSING = (
    *("", " ", "\u3000", "\u200b", "nan", "NaN", "NAN", " None ", "NULL", "null", "\\N", "#N/A", "N/A", "n/a", "-"),
    *("--", "—", "－", "ＮＵＬＬ", "<NA>", "NaT", "nil", "undefined", "(null)", "<null>", "[NULL]", "#REF!", "#DIV/0!"),
    *("暂无", "（空）", "(空)", "<空>", "【缺失】", " 未填写 ", "暫無資料", "——", "N/A "),
    *("(blank)", "ｎａｎ", "Ｎ／Ａ", "―", "----"),
    *("#VALUE!", "inf", "-Infinity", "[]", "{}", '""', "#NAME?", "\tnull\r"),
)
PRESENT = (
    *(
        "无",
        "暂无库存怎么办",
        "空腹",
        "nano 钙",
        "NaCl",
        "0",
        "0.0",
        "-1",
        "不",
        "Nancy",
        "none of them",
        "null 怎么办",
        "a-b",
        "[1]",
        "N",
    ),
)


@pytest.mark.parametrize("cell", [None, math.nan, math.inf, -math.inf, [], {}, (), *MISSING])
def test_missing(cell: object) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize("cell", [0, 0.0, False, [0], {"a": None}, *PRESENT])
def test_recorded(cell: object) -> None:
    assert not is_missing(cell)


def test_a_column_is_judged_as_its_cells_are() -> None:
    cells = [*MISSING, *PRESENT, None]
    assert without_missing(pa.array(cells)).to_pylist() == ["" if is_missing(cell) else cell for cell in cells]


@pytest.mark.parametrize("as_arrow", [True, False])
@pytest.mark.parametrize("written", ["nan", "NULL", "\\N", "#N/A", "-"])
def test_every_column_of_a_row_reads_it_alike(written: str, as_arrow: bool) -> None:
    names = (
        *("rewritten_query", "user_profile", "history_summary", "history_context", "tenant_id", "query_id", "model"),
        *("timestamp", "top1_score", "recall_count", "success", "slices", "error"),
    )
    cells: dict[str, object] = {name: [written] for name in names} | {"original_query": ["鱼油"]}
    columns = {name: pa.array(cell) if as_arrow else cell for name, cell in cells.items()}
    [row] = parse_columns(columns, file="f", sheet="", rows=[1], source="test_set").to_pylist()
    assert not row["refused"] and not any(row[name] for name in names)
    assert row["top1_score"] is None and row["recall_count"] is None and row["success"] is None


def test_a_query_that_is_missing_is_refused() -> None:
    columns = {"original_query": ["nan", math.nan, "#N/A", "鱼油"]}
    rows = parse_columns(columns, file="f", sheet="", rows=range(4), source="test_set").to_pylist()
    assert [row["refused"] for row in rows] == ["original_query: empty"] * 3 + [""]


@pytest.mark.parametrize("as_arrow", [True, False])
def test_what_is_read_as_missing_is_counted_and_named(as_arrow: bool) -> None:
    cells = {"original_query": ["鱼油"] * 6, "user_profile": ["NULL", "（空）", "(null)", "", "[]", "45岁"]}
    cells |= {"recall_results": ["nan", "", "[]", "\\N", "", ""]}
    columns = {name: pa.array(texts) if as_arrow else texts for name, texts in cells.items()}
    rows = parse_columns(columns, file="f", sheet="", rows=range(6), source="test_set").to_pylist()
    assert [row["remarks"] for row in rows] == [
        ["user_profile: read as not recorded (NULL)", "recall_results: read as not recorded (nan)"],
        ["user_profile: read as not recorded (（空）)"],
        ["user_profile: read as not recorded (（null）)"],
        ["recall_results: read as not recorded (\\N)"],
        [],
        [],
    ]


def test_a_spelling_in_a_log_is_named_where_nothing_else_is_recorded(tmp_path: Path) -> None:
    lines = (
        {"query": "鱼油", "user_profile": math.nan, "改写": "用法"},
        {"payload": {"query": "钙片"}, "response": {"rewritten_query": "None"}},
        {"payload": {"query": "钙片", "user_profile": "NULL"}, "user_profile": "45岁"},
    )
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    rows = [row for batch in read_logs(path, SourceSettings(), ()) for row in batch.to_pylist()]
    assert [row["remarks"] for row in rows] == [
        ["user_profile: read as not recorded (nan)"],
        ["rewritten_query: read as not recorded (None)"],
        [],
    ]
    assert [row["user_profile"] for row in rows] == ["", "", "45岁"]
