"""The two readers of a log line, SQL and Python, make the same row of it, whatever the line holds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers import log_file
from data_prep.readers.log_paths import LogPaths
from data_prep.rows.columns import ALIASES, COLUMNS
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

WORDS = (
    *(
        "鱼油怎么吃",
        "维生素 C",
        "a b",
        "",
        " ",
        "\u3000",
        "nan",
        "NULL",
        "\\N",
        "-",
        "－",
        "#N/A",
        "[]",
        "{}",
        "[表情] 你好",
    ),
    *(
        "true",
        "1.0",
        "0.50",
        "1e3",
        "-0",
        "007",
        "无",
        "a\tb",
        "行\n行",
        "e\u0301",
        "\u200b",
        "a\x0bb",
        '"引"',
        "\\",
        "/",
        "😀",
        "（空）",
        "暂无",
        "a\x85b\x0cc",
        "<think>想</think>用法",
        "&lt;think&gt;想&lt;/think&gt; 用法",
    ),
    *(
        "2026-11-01T10:00:00",
        "2026-11-01 10:00:00Z",
        "02/Jan/2026:03:04:05 +0000",
        "昨天",
        "1767323045",
        "20260102030405",
    ),
    *(
        '{"role": "user", "content": "在吗"}',
        '[{"role": "user", "content": "在吗"}]',
        '{"rewritten_query": "内"}',
        "x" * 70,
    ),
)
texts = st.sampled_from(WORDS)
scalars = st.one_of(
    texts,
    st.sampled_from(
        [None, True, False, 0, 1, -1, 2.5, 0.5, 1e300, float("nan"), float("inf"), 10**20, 1767323045, 5.0]
    ),
)
roles = st.sampled_from(["user", "User", "assistant", "客服", "顾客", "店长", "system", "tool", " bot ", None, 5])
turns = st.one_of(
    st.fixed_dictionaries({"role": roles, "content": st.one_of(scalars, st.just([{"type": "text", "text": "在"}]))}),
    st.fixed_dictionaries({"from": roles, "value": scalars}),
    st.fixed_dictionaries({"Role": roles, "content": scalars}),
    scalars,
)
hits = st.one_of(
    st.fixed_dictionaries(
        {"content": texts}, optional={"score": scalars, "reranker_score": scalars, "doc_id": scalars}
    ),
    scalars,
)
objects = st.dictionaries(st.sampled_from(["age", "标签", "a b"]), scalars, max_size=2)
values = st.one_of(scalars, scalars, st.lists(turns, max_size=3), st.lists(hits, max_size=3), objects)
INNER = (
    *(
        "query",
        "rewritten_query",
        "user_profile",
        "history_summary",
        "history_context",
        "history",
        "recall",
        "tenant_id",
    ),
    *("Query", "rewrittenQuery", " user_profile ", "History-Summary", "data", "success", "timestamp", "other", "id"),
)
inner = st.dictionaries(st.sampled_from(INNER), values, max_size=5)
parts = st.one_of(inner, inner.map(json.dumps), inner.map(lambda part: json.dumps(json.dumps(part))), scalars)
OUTER = (*COLUMNS, *sorted(ALIASES), "source", "other", "User_Profile", " history_summary ", "QUERY", "Top1 Score")
lines = st.builds(
    lambda flat, nested: flat | nested,
    st.dictionaries(st.sampled_from(OUTER), values, max_size=5),
    st.dictionaries(st.sampled_from(["payload", "response", "data", "Payload"]), parts, max_size=3),
)


CLEAN = (
    "鱼油怎么吃",
    "维生素 C 用法",
    "45岁女性",
    "行一\n行二",
    "[表情] 你好",
    "e\u0301 与 é",
    "😀 开心",
    "a\u3000b 鱼",
    "12",
    "abc def",
)
clean = st.sampled_from(CLEAN)
clean_turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "User", "assistant", "客服"]), "content": clean})
clean_hits = st.fixed_dictionaries(
    {"content": clean, "score": st.sampled_from([0.5, 1, 0.25])},
    optional={"reranker_score": st.just(0.9), "doc_id": clean},
)
context = {
    "user_profile": clean,
    "history_summary": clean,
    "history_context": st.one_of(clean, st.lists(clean_turns, max_size=3)),
    "timestamp": st.sampled_from(
        ["2026-11-01T10:00:00", "2026-11-01 10:00:00Z", "昨天", "1767323045", "Jan 2, 2026 3:04 PM"]
    ),
    "top1_score": st.sampled_from([0.5, "0.75"]),
    "success": st.booleans(),
}
flat_lines = st.fixed_dictionaries(
    {"query": clean}, optional=context | {"改写": clean, "召回结果": st.lists(clean_hits, max_size=2), "id": clean}
)
service_lines = st.builds(
    lambda payload, response, beside: {"payload": payload, "response": response, **beside},
    st.fixed_dictionaries(
        {"query": clean}, optional={"history": st.lists(clean_turns, max_size=3), "user_profile": clean}
    ),
    st.fixed_dictionaries(
        {"rewritten_query": clean}, optional={"recall": st.lists(clean_hits, max_size=2), "history_context": clean}
    ),
    st.fixed_dictionaries(
        {}, optional=context | {"tenant_id": clean, "request_id": clean, "id": clean, "用户画像": clean}
    ),
)
# Most lines of a real log hold nothing odd, or one odd thing.
tidy = st.one_of(flat_lines, service_lines)
almost = st.builds(lambda line, more: line | more, tidy, st.dictionaries(st.sampled_from(OUTER), values, max_size=1))


@st.composite
def written(draw: st.DrawFn) -> str:
    """A line as some program writes it: keys may come twice, texts escaped, all of it packed into a text."""
    line = draw(st.one_of(tidy, almost, lines))
    shown = json.dumps(line, ensure_ascii=draw(st.booleans()))
    if draw(st.integers(0, 9)) == 9 and line:
        again = json.dumps({draw(st.sampled_from(sorted(line))): draw(values)}, ensure_ascii=False)
        shown = f"{shown[:-1]}, {again[1:]}"
    if draw(st.integers(0, 15)) == 15:
        shown = json.dumps(shown)
    return shown


def by_sql_and_python(path: Path, paths: SourceSettings) -> list[dict[str, Any]]:
    return [row for batch in log_file.read_logs(path, paths, ()) for row in batch.to_pylist()]


def by_python(found: list[str], path: Path, paths: SourceSettings) -> list[dict[str, Any]]:
    numbered = {number: line.encode() for number, line in enumerate(found, start=1)}
    return log_file._look_at(numbered, str(path), LogPaths(paths), set()).to_pylist()


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Hits are compared as values: 1 and 1.0 are one score, and spaces in JSON are nothing."""
    hits = json.loads(row["recall_results"]) if row["recall_results"] else None
    return {**row, "recall_results": hits}


PATHS = [
    SourceSettings(),
    SourceSettings(
        log_paths={"original_query": ["ask.q"], "recall_results": ["choices[0].hits"], "model": ["Payload.m"]}
    ),
]


@pytest.mark.parametrize("paths", PATHS, ids=["built-in", "own"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(written(), min_size=20, max_size=40))
def test_both_readers_make_the_same_row(found: list[str], paths: SourceSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.log"
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
        try:
            rows = by_sql_and_python(path, paths)
        except BadInput:
            return  # not one line is an object
        expected = by_python(found, path, paths)
    assert len(rows) == len(expected) == len(found)
    for line, row, other in zip(found, rows, expected, strict=True):
        differing = differences(row, other)
        assert not differing, f"{line}: {differing}"


def differences(row: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[object, object]]:
    one, two = comparable(row), comparable(other)
    for score in ("top1_score", "avg_top3_score"):
        if one[score] is not None and two[score] is not None and one[score] == pytest.approx(two[score]):
            one[score] = two[score]
    return {name: (one[name], two[name]) for name in one if one[name] != two[name]}


def test_most_lines_of_a_usual_log_are_left_to_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"payload": {"query": f"鱼油{n}", "history": []}, "response": {"rewritten_query": "鱼油 用法"}, "timestamp": ""}
        for n in range(50)
    ]
    path = tmp_path / "a.log"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    looked_at: list[int] = []
    original = log_file._look_at

    def counted(found: Any, *rest: Any) -> pa.RecordBatch:
        looked_at.extend(found)
        return original(found, *rest)

    monkeypatch.setattr(log_file, "_look_at", counted)
    assert len(by_sql_and_python(path, SourceSettings())) == 50 and not looked_at
