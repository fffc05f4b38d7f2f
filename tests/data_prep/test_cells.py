"""Raw cells become typed rows; a bad cell costs its row, with field and reason, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.rows.cells import parse_columns
from data_prep.rows.columns import ROWS
from data_prep.rows.recall_cells import read_recall
from data_prep.rows.timestamps import read_timestamp
from reward.records.sample import Hit


def parse(**columns: Sequence[object] | pa.Array) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    columns.setdefault("original_query", ["鱼油怎么吃"] * count)
    batch = parse_columns(columns, file="a.xlsx", sheet="一", rows=range(2, 2 + count), source="test_set")
    assert batch.schema == ROWS
    batch.validate(full=True)
    return batch.to_pylist()


def both_ways(name: str, cells: Sequence[str]) -> list[tuple[Any, str]]:
    """(value, refused) of text cells, which must not depend on whether they come as objects or as Arrow strings."""
    found, arrow = parse(**{name: cells}), parse(**{name: pa.array(cells, pa.string())})
    assert found == arrow
    return [(row[name], row["refused"]) for row in found]


def test_what_is_not_given_reads_as_not_recorded() -> None:
    [row] = parse(original_query=["鱼油"])
    assert (row["file"], row["sheet"], row["row"], row["source"], row["refused"]) == ("a.xlsx", "一", 2, "test_set", "")
    assert row["rewritten_query"] == row["recall_results"] == row["timestamp"] == "" and row["slices"] == []
    assert row["success"] is row["top1_score"] is row["recall_count"] is None
    assert parse(original_query=[]) == []


def test_numbers_however_they_are_written() -> None:
    cells = ["0.85", " 85% ", "０.８５", "1e-3", "", "-2.5", "0,85", "高", "1_0", "0x1A", "9" * 400]
    found = both_ways("top1_score", cells)
    assert [value for value, _ in found[:6]] == [0.85, 0.85, 0.85, 0.001, None, -2.5]
    assert [reason for _, reason in found[:6]] == [""] * 6
    for (value, reason), cell in zip(found[6:], cells[6:], strict=True):
        assert value is None and reason == f"top1_score: not a number: {cell[:40]!r}"
    rows = parse(top1_score=[0.9, 1, None, True, float("nan"), float("inf"), 10**400, [1]])
    assert [row["top1_score"] for row in rows] == [0.9, 1.0, None, None, None, None, None, None]
    assert [bool(row["refused"]) for row in rows] == [False] * 3 + [True, False, False, True, True]


def test_counts_are_whole_and_not_negative() -> None:
    assert both_ways("recall_count", ["5", "5.0", "", "-1", "2.5", "1e300"]) == [
        (5, ""),
        (5, ""),
        (None, ""),
        (None, "recall_count: not a count: -1"),
        (None, "recall_count: not a count: 2.5"),
        (None, "recall_count: not a count: 1e+300"),
    ]


def test_truth_values_in_both_languages() -> None:
    true, false = (
        ["TRUE", "是", "1", "成功", "对", "yes", " Y ", "１", "√"],
        ["false", "否", "0", "失败", "错", "No", "×"],
    )
    found = both_ways("success", [*true, *false, "", "也许"])
    assert [value for value, _ in found] == [True] * len(true) + [False] * len(false) + [None, None]
    assert found[-2:] == [(None, ""), (None, "success: neither true nor false: '也许'")]
    assert [row["success"] for row in parse(success=[True, 0, 1.0, None])] == [True, False, True, None]


def test_texts_of_other_kinds_of_cells() -> None:
    cells = ["钙片", 12345.0, 0.5, True, date(2026, 1, 2), {"a": 1}, "\ud800", "x\0y", "长" * 32_767]
    rows = parse(rewritten_query=cells)
    texts = ["钙片", "12345", "0.5", "TRUE", "2026-01-02", "", "", "x\0y", "长" * 32_767]
    assert [row["rewritten_query"] for row in rows] == texts
    assert [row["refused"] for row in rows[5:7]] == [
        "rewritten_query: expected text, found dict",
        "rewritten_query: half a character (a lone surrogate)",
    ]
    assert not any(row["refused"] for row in rows[:5] + rows[7:])


def test_a_query_of_nothing_visible_is_empty() -> None:
    found = both_ways("original_query", ["", " \u3000", "\u200b\ufeff", "\x00\x07", "a"])
    assert [reason for _, reason in found] == ["original_query: empty"] * 4 + [""]


def test_the_first_reason_counts() -> None:
    columns = {"original_query": ["", "a", "a"], "success": ["也许"] * 3, "top1_score": ["高", "高", ""]}
    batch = parse_columns(
        columns, file="f", sheet="", rows=pa.array([1, 2, 3]), source="test_set", refused=["", "", "earlier"]
    )
    assert batch["refused"].to_pylist() == ["original_query: empty", "top1_score: not a number: '高'", "earlier"]


def test_slices() -> None:
    assert both_ways("slices", ["新，难 , 热", "", ","]) == [(["新", "难", "热"], ""), ([], ""), ([], "")]
    assert [row["slices"] for row in parse(slices=[["新", "难"], None, 5.0])] == [["新", "难"], [], ["5"]]


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05"),
        (" 2026-01-02 03:04:05.25 ", "2026-01-02T03:04:05.25"),
        ("2026-01-02T03:04:05+08:00", "2026-01-02T03:04:05+08:00"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02", "2026-01-02T00:00:00"),
        ("2026/1/2 3:04", "2026-01-02T03:04:00"),
        ("2026年1月2日 3时4分", "2026-01-02T03:04:00"),
        ("1767323045", "2026-01-02T03:04:05+00:00"),
        ("1767323045000", "2026-01-02T03:04:05+00:00"),
        ("46024.5", "2026-01-02T12:00:00"),
        ("20260102", "2026-01-02T00:00:00"),
        ("2026-02-30", ""),
        ("2026-13-45T99:99:99", ""),
        ("昨天", ""),
        ("", ""),
    ],
)
def test_timestamps(cell: str, moment: str) -> None:
    assert both_ways("timestamp", [cell]) == [(moment, "")]
    assert both_ways("timestamp", [cell, "2026-02-30", "昨天"])[0] == (moment, ""), "whatever stands beside it"


def test_timestamps_of_other_kinds_of_cells() -> None:
    cells = [
        datetime(2026, 1, 2, 3),
        date(2026, 1, 2),
        46024.5,
        1767323045,
        timedelta(days=1),
        None,
        True,
        float("nan"),
    ]
    moments = ["2026-01-02T03:00:00", "2026-01-02T00:00:00", "2026-01-02T12:00:00", "2026-01-02T03:04:05+00:00"]
    assert [read_timestamp(cell) for cell in cells] == [*moments, "", "", "", ""]


HITS = [{"content": "鱼油\n每日两粒", "score": 0.5, "reranker_score": 0.9, "rank": 1}, {"content": "钙", "score": 1}]


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(HITS),
        json.dumps(HITS, ensure_ascii=False),
        repr(HITS),
        json.dumps(json.dumps(HITS)),
        json.dumps(HITS).replace("\\n", "\n"),
        json.dumps([HITS[0] | {"score": "0.5"}, HITS[1] | {"doc_id": None}]),
        json.dumps(HITS).encode(),
        HITS,
    ],
)
def test_hits_as_json_as_python_or_twice_encoded(cell: object) -> None:
    [row] = parse(recall_results=[cell])
    assert not row["refused"]
    hits = [Hit.model_validate(hit) for hit in json.loads(row["recall_results"])]
    assert hits == [Hit(content="鱼油\n每日两粒", score=0.5, reranker_score=0.9), Hit(content="钙", score=1)]
    assert (row["recall_count"], row["top1_score"], row["avg_top3_score"]) == (2, 0.9, pytest.approx(0.95))


def test_recorded_figures_outweigh_those_of_the_hits() -> None:
    hits = json.dumps(HITS)
    rows = parse(recall_results=[hits] * 2, top1_score=[0.7, ""], avg_top3_score=[0.6, 0.6], recall_count=[5, 5])
    assert [(r["recall_count"], r["top1_score"], r["avg_top3_score"]) for r in rows] == [(5, 0.7, 0.6), (5, 0.9, 0.6)]


def test_no_hits_are_not_the_same_as_none_recorded() -> None:
    rows = parse(recall_results=["[]", "", "null", "None", [], json.dumps([{"content": "a"}])])
    assert [(row["recall_results"] != "", row["recall_count"], row["top1_score"]) for row in rows] == [
        (True, 0, None),
        (False, None, None),
        (False, None, None),
        (False, None, None),
        (True, 0, None),
        (True, 1, None),
    ]


def test_hits_cut_off_by_excel_do_not_cost_the_row() -> None:
    text = json.dumps([{"content": "长" * 40_000}], ensure_ascii=False)
    cut, whole = parse(recall_results=[text[:32_767], text], top1_score=[0.9, 0.9])
    assert (cut["recall_results"], cut["top1_score"], cut["refused"]) == ("", 0.9, "")
    assert json.loads(whole["recall_results"])[0]["content"] == "长" * 40_000


BROKEN = "neither JSON nor a Python literal"


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ('[{"content": "a"', BROKEN),
        ("[{'content': __import__('os').getcwd()}]", BROKEN),
        ("[" * 20_000, BROKEN),
        ("(" * 20_000, BROKEN),
        ("[" + "-" * 20_000 + "1]", BROKEN),
        ("[" + "1+" * 10_000 + "1]", BROKEN),
        ("[{'a':" * 5_000, BROKEN),
        ("['" + "\\'" * 15_000, BROKEN),
        ("[" + "9" * 5_000 + "]", BROKEN),
        ("\x00x", BROKEN),
        ('{"content": "a"}', "expected a list of hits, found dict"),
        ("[1]", "hit 1 is no object but int"),
        ('[{"content": "a"}, {"score": 1}]', "hit 2 has no text as its content"),
        ('[{"content": "a", "score": "高"}]', "hit 1: score is not a finite number: '高'"),
        ('[{"content": "a", "reranker_score": 1e999}]', "hit 1: reranker_score is not a finite number: 'inf'"),
        ("[{'content': 'a', 'score': inf}]", "hit 1: score is not a finite number: 'inf'"),
        ("[{'content': 'a', 'score': np.float64(-inf)}]", "hit 1: score is not a finite number: '-inf'"),
        ('[{"content": "a", "doc_id": 1.994723847123456e18}]', "doc_id is a rounded number: 1.994723847123456e+18"),
        ('[{"content": "a", "score": true}]', "hit 1: score is not a finite number: 'True'"),
        ('[{"content": "a", "doc_id": []}]', "hit 1: doc_id is neither text nor a number"),
    ],
)
def test_broken_hits_refuse_their_row_alone(cell: str, problem: str) -> None:
    broken, good = parse(recall_results=[cell, "[]"])
    assert (broken["refused"], broken["recall_results"]) == (f"recall_results: {problem}", "")
    assert good["refused"] == ""


def test_half_a_character_in_a_passage_does_not_cost_the_row() -> None:
    [row] = parse(recall_results=['[{"content": "好\\ud83d", "doc_id": 7}]'])
    assert json.loads(row["recall_results"]) == [
        {"content": "好�", "score": None, "reranker_score": None, "doc_id": "7"}
    ]


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"content": st.text(), "score": st.none() | st.floats(-9, 9)}), max_size=3))
def test_what_python_prints_reads_as_what_json_says(hits: list[dict[str, Any]]) -> None:
    as_json, as_python = parse(recall_results=[json.dumps(hits), repr(hits)])
    as_python["row"] = as_json["row"]
    assert as_python == as_json and not as_json["refused"]


_JUNK = st.one_of(
    st.text(st.characters(), max_size=20),
    st.floats(),
    st.integers(),
    st.booleans(),
    st.none(),
    st.datetimes(),
    st.timedeltas(),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@settings(deadline=None)
@given(st.data())
def test_no_cell_breaks_anything(data: st.DataObject) -> None:
    names = (
        "original_query",
        "top1_score",
        "recall_count",
        "success",
        "timestamp",
        "slices",
        "recall_results",
        "model",
    )
    count = data.draw(st.integers(0, 4))
    rows = parse(**{name: data.draw(st.lists(_JUNK, min_size=count, max_size=count)) for name in names})
    assert len(rows) == count and all("\n" not in row["refused"] for row in rows)


@pytest.mark.parametrize(
    ("cell", "hits"),
    [
        ("[{'content': 'a', 'score': np.float64(0.93), 'doc_id': np.int64(7)}]", [("a", 0.93, "7")]),
        ("[{'content': 'a', 'score': 0.93, 'reranker_score': nan}]", [("a", 0.93, None)]),
        ('[{"content": "a", "score": NaN, "doc_id": 7.0}]', [("a", None, "7")]),
        ("[{'content': np.str_('np.float64(1), nan)'), 'score': np.float32(1)}]", [("np.float64(1), nan)", 1.0, None)]),
        ("({'content': 'a', 'score': np.float64(nan), 'doc_id': <NA>},)", [("a", None, None)]),
        ("[{'content': 'a', 'ok': np.True_, 'x': array([1., 2.], dtype=float32)}]", [("a", None, None)]),
        ("array([{'content': 'a', 'score': Decimal('0.25')}], dtype=object)", [("a", 0.25, None)]),
        ("[{'content': 'a', 't': datetime.date(2026, 1, 2), 's': Timestamp('2026-01-02')}]", [("a", None, None)]),
        ("[{'content': 'a', 'score': '', 'reranker_score': 'nan', 'doc_id': np.str_('d1')}]", [("a", None, "d1")]),
    ],
)  # fmt: skip
def test_hits_as_numpy_and_pandas_print_them(cell: str, hits: list[tuple[str, float | None, str | None]]) -> None:
    found = read_recall([cell], [True])
    assert not found.problems
    assert [(hit["content"], hit["score"], hit["doc_id"]) for hit in json.loads(found.texts[0])] == hits


@pytest.mark.parametrize(("length", "cut"), [(32_767, True), (32_766, True), (32_000, False)])
def test_cells_cut_off_by_excel_are_counted_in_utf16(length: int, cut: bool) -> None:
    start = '[{"content": "'
    emoji, rest = divmod(length - len(start), 2)
    found = read_recall([start + "👩" * emoji + "x" * rest], [True])
    assert (found.problems == {}) is cut
