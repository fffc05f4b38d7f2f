"""One meaning of missing: for log lines, CSV cells and workbook cells."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from data_prep.rows.cells import parse_columns
from data_prep.rows.missing import is_missing, without_missing

MISSING = (
    *("", " ", "\u3000", "\u200b", "nan", "NaN", "NAN", " None ", "NULL", "null", "\\N", "#N/A", "N/A", "n/a", "-"),
    *("--", "—", "－", "ＮＵＬＬ", "<NA>", "NaT", "nil", "undefined", "(null)", "<null>", "[NULL]", "#REF!", "#DIV/0!"),
    *("#VALUE!", "inf", "-Infinity", "[]", "{}", '""', "#NAME?", "\tnull\r"),
)
PRESENT = (
    *(
        "无",
        "暂无",
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
