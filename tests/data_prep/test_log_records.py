"""Lines of one shape, decoded straight into their cells, make the rows that each makes alone."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers.log_file import read_logs
from data_prep.readers.log_paths import LogPaths
from data_prep.readers.log_shapes import LogShapes
from data_prep.rows.columns import COLUMNS
from reward.settings.data import SourceSettings

BUILT_IN = SourceSettings()
# An object that is a column's own place, and one in which another column is.
OWN = SourceSettings(
    log_paths={
        "user_profile": ["response.user_profile"],
        "model": ["response.user_profile.age"],
        "recall_results": ["response", "response.recall"],
        "history_summary": ["payload"],
    }
)
HIT = {"content": "每日两粒", "score": 1, "reranker_score": 0.5, "doc_id": "d1"}
NESTED = {
    "timestamp": "2026-11-01T10:00:00",
    "payload": {"query": "鱼油怎么吃", "user_profile": "45岁女性", "tenant_id": "t", "top_k": 5},
    "response": {"rewritten_query": "鱼油 用法", "recall": [HIT, {**HIT, "title": "t"}], "debug": {"a": [1, None]}},
    "model": "m",
    "error": None,
}
SHAPES: list[dict[str, Any]] = [
    NESTED,
    {**NESTED, "source": "test_set"},
    {"query": "鱼油怎么吃", "改写": "鱼油 用法", "召回结果": [HIT], "history": [{"role": "user", "content": "在吗"}]},
    {"data": {"query": "鱼油怎么吃", "rewritten_query": "鱼油 用法"}, "result": None, "f0": 1, "\n": 2},
    {"query": "鱼油怎么吃", "user_query": "鱼油", "rewrite": "鱼油 用法"},
    {"query": "鱼油怎么吃"},
    {
        **NESTED,
        "response": {"rewritten_query": "鱼油 用法", "recall": [{"content": "每日两粒"}], "user_profile": {"age": 3}},
    },
    {"query": "鱼油怎么吃", "rewrite_result": {"model": "m"}, "debug": {}, "note": "", "trace": None},
    {"messages": [{"role": "user", "content": "鱼油怎么吃"}], "response": "鱼油 用法"},
]
ODD = (
    *(
        None,
        "",
        " ",
        "nan",
        "无",
        "[]",
        "{}",
        0,
        -1,
        2.5,
        True,
        10**20,
        1e300,
        float("nan"),
        "\ud800",
        "test_set",
        "是",
    ),
    *([], {}, [HIT], [{"content": 1}], [{"score": 0.5}], [{"content": "x", "score": "0.5"}], {"content": "x"}, ["x"]),
    *('{"query": "内"}', '{"rewritten_query": "内', "<think>想</think>用法", json.dumps([HIT]), {"query": "内"}),
)
odd = st.sampled_from(ODD)


@st.composite
def changed(draw: st.DrawFn, shape: dict[str, Any]) -> str:
    """Write a line of `shape`, mostly with one odd value, at times with a key gone, or twice."""
    line = copy.deepcopy(shape)
    owner: Any = line
    while draw(st.booleans()) and (inner := [one for one in _values(owner) if isinstance(one, dict | list) and one]):
        owner = draw(st.sampled_from(inner))
    place = draw(st.sampled_from(list(owner) if isinstance(owner, dict) else range(len(owner))))
    change = draw(st.integers(0, 9))
    if change == 0:
        del owner[place]
    elif change < 8:
        owner[place] = draw(odd)
    text = json.dumps(line, ensure_ascii=draw(st.booleans()))
    if change == 8 and line:
        text = f"{text[:-1]}, {json.dumps({draw(st.sampled_from(list(line))): draw(odd)})[1:]}"
    return text.encode("utf-8", "replace").decode()


def _values(node: Any) -> list[Any]:
    return list(node.values() if isinstance(node, dict) else node)


def rows_of(path: Path, lines: list[str], paths: SourceSettings = BUILT_IN) -> list[dict[str, Any]]:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [row for batch in read_logs(path, paths, ()) for row in batch.to_pylist()]


@pytest.mark.parametrize("paths", [BUILT_IN, OWN], ids=["built-in", "own"])
@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_line_among_its_like_makes_the_row_that_it_makes_alone(
    paths: SourceSettings, shape: dict[str, Any], data: st.DataObject
) -> None:
    lines = [json.dumps(shape)] * 8 + data.draw(st.lists(changed(shape), min_size=12, max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.log"
        together = rows_of(path, lines, paths)
        for number, line in enumerate(lines, start=1):
            # A first line that is none of JSON's would refuse the file.
            [alone] = rows_of(path, [line], paths)
            assert {**alone, "row": number} == together[number - 1], line
    assert len(together) == len(lines)


@pytest.mark.parametrize(
    "shape, is_decoded", [*((one, True) for one in SHAPES[:3]), *((one, False) for one in SHAPES[3:5])]
)
def test_which_shapes_are_decoded_straight_into_cells(shape: dict[str, Any], is_decoded: bool) -> None:
    shapes = LogShapes(LogPaths(SourceSettings()), {})
    cells: list[list[object]] = [[None] * 8 for _ in COLUMNS]
    for row in range(8):
        shapes.find(json.loads(json.dumps(shape)), cells, row)
    if not is_decoded:
        assert shapes.records is None
        return
    assert shapes.records
    record = shapes.records.decode(json.dumps(shape).encode())
    found = dict(zip(shapes.records.columns, shapes.records.values(record), strict=True))
    hits = shapes.records.hits(record)
    found[COLUMNS.index("recall_results")] = msgspec.to_builtins(hits)
    wanted = {place: column[0] for place, column in enumerate(cells)}
    assert {place: found.get(place) for place in wanted} == wanted


@pytest.mark.parametrize(
    "odd_part", [b'"title": "\xff"', b'"title": ' + b"1" * 5000, b'"\xed\xa0\x80": 1', b'"title": "t"']
)
def test_other_keys_of_a_hit_are_read_as_json_too(tmp_path: Path, odd_part: bytes) -> None:
    line = b'{"query": "q", "rewritten_query": "r", "recall": [{"content": "c", %s}]}'
    path = tmp_path / "a.log"
    rows = []
    for lines in ([line % b'"title": "t"'] * 9 + [line % odd_part], [line % b'"title": "t"', line % odd_part]):
        path.write_bytes(b"\n".join(lines) + b"\n")
        rows.append([row for batch in read_logs(path, BUILT_IN, ()) for row in batch.to_pylist()][-1])
    assert rows[0] == {**rows[1], "row": 10}


def test_a_key_that_holds_something_late_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for first, late in ((None, 1), ("", "x"), ({}, {"a": 1}), ([], [1]), ("-", 2), ("nan", "x")):
        lines = [{**NESTED, "seen_by": first}] * 20 + [{**NESTED, "seen_by": late}]
        path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        notes: list[str] = []
        assert sum(batch.num_rows for batch in read_logs(path, BUILT_IN, (), notes)) == 21
        assert any("seen_by" in note for note in notes), (first, notes)


@pytest.mark.parametrize("late", [{}, [], "", "nan", {"query": "内"}])
def test_what_takes_the_place_of_a_missing_object_is_looked_at(tmp_path: Path, late: object) -> None:
    path = tmp_path / "a.log"
    line = {"query": "鱼油怎么吃", "rewrite": "鱼油 用法", "payload": None}
    lines = [json.dumps(line)] * 9 + [json.dumps({**line, "payload": late})]
    [alone] = rows_of(path, lines[-1:])
    assert rows_of(path, lines)[-1] == {**alone, "row": 10}
