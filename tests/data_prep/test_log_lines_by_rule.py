"""Whatever a log line holds, its row is what the rules say, as written out here one line and one column at a time."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers.log_file import read_logs
from data_prep.readers.log_paths import parse_path
from data_prep.rows.cells import parse_columns
from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS, TEXTS
from data_prep.rows.dialogue import unpacked
from data_prep.rows.headings import heading_key
from data_prep.rows.missing import is_missing
from data_prep.rows.missing import spelled as spelt
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


PATHS = [
    SourceSettings(),
    SourceSettings(
        log_paths={"original_query": ["ask.q"], "recall_results": ["choices[0].hits"], "model": ["Payload.m"]}
    ),
]


def spelled(node: object, step: str | int) -> list[object]:
    """What an object or a list holds under a key: as it is written first, then as others write it."""
    if isinstance(step, int):
        return [node[step]] if isinstance(node, list) and step < len(node) else []
    if not isinstance(node, dict):
        return []
    others = [value for key, value in node.items() if key != step and heading_key(key) == heading_key(step)]
    return [node[step], *others] if step in node else others


def held(line: dict[str, Any], steps: tuple[str | int, ...]) -> list[object]:
    node: object = line
    for step in steps[:-1]:
        inner = (unpacked(value) if isinstance(value, str) else value for value in spelled(node, step))
        node = next((value for value in inner if isinstance(value, dict | list)), None)
    return spelled(node, steps[-1])


def plainly(text: str, row: int, file: str, settings: SourceSettings) -> dict[str, Any]:
    """The row of one line, by the rules as they are written down, one line and one column after another."""
    line = json.loads(text)
    line = unpacked(line) if isinstance(line, str) else line
    refused = "" if isinstance(line, dict) else "no object"
    line = line if isinstance(line, dict) else {}
    cells: dict[str, object] = {}
    own_query = False
    for name in COLUMNS:
        own = [parse_path(path) for path in settings.log_paths.get(name, ())]
        places = [path.steps for path in own if path] + [tuple(path.split(".")) for path in LOG_PATHS.get(name, ())]
        headings = [name, *(alias for alias, column in ALIASES.items() if column == name)]
        values = [value for steps in places for value in held(line, steps)]
        values += [line[heading] for heading in headings if heading in line]
        values += [value for heading in headings for value in spelled(line, heading)]
        nothing: object = [] if name == "recall_results" and ([] in values or "[]" in values) else None
        cell = next((value for value in values if not is_missing(value)), nothing)
        cell = next(filter(spelt, values), None) if cell is None else cell
        if name == "original_query":
            own_query = any(not is_missing(value) for path in own if path for value in held(line, path.steps))
        if isinstance(cell, dict | list) and name in ("original_query", "rewritten_query") and not refused:
            refused = f"{name}: expected a text, found {'an object' if isinstance(cell, dict) else 'a list'}"
        elif isinstance(cell, dict | list) and name in TEXTS and name not in ("history_context", "recall_results"):
            cell = json.dumps(cell, ensure_ascii=False, separators=(",", ":"))
        cells[name] = cell
    if not refused and cells["original_query"] is None:
        looked_at = (*settings.log_paths.get("original_query", ()), *LOG_PATHS["original_query"])
        refused = f"original_query: nothing at {', '.join(looked_at)}"
    columns = {name: [None if refused else cell] for name, cell in cells.items()}
    batch = parse_columns(columns, file=file, sheet="", rows=[row], source="", refused=[refused])
    roots = {path.split(".")[0] for paths in LOG_PATHS.values() for path in paths if "." in path}
    roots |= {str(parse_path(path).steps[0]) for paths in settings.log_paths.values() for path in paths}  # type: ignore[union-attr]
    nested = any(isinstance(opened(line, root), dict) for root in roots)
    source = "production_log" if nested or own_query or not line else "test_set"
    if line.get("source") in ("production_log", "test_set"):
        source = str(line["source"])
    return batch.to_pylist()[0] | {"source": source}


def opened(line: dict[str, Any], root: str) -> object:
    """The first object or list that a key of the line holds, however the key is spelled."""
    values = (unpacked(value) if isinstance(value, str) else value for value in spelled(line, root))
    return next((value for value in values if isinstance(value, dict | list)), None)


def check(found: list[str], settings: SourceSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.log"
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
        try:
            rows = [row for batch in read_logs(path, settings, ()) for row in batch.to_pylist()]
        except BadInput:
            assert not any(isinstance(opened_line(line), dict) for line in found)
            return
    assert len(rows) == len(found)
    for number, (line, row) in enumerate(zip(found, rows, strict=True), start=1):
        expected = plainly(line, number, str(path), settings)
        if expected["refused"] == "no object":
            assert row["refused"].startswith("expected an object"), line
            expected["refused"] = row["refused"]
        differing = {name: (row[name], expected[name]) for name in row if row[name] != expected[name]}
        assert not differing, f"{line}: {differing}"


def opened_line(text: str) -> object:
    line = json.loads(text)
    return unpacked(line) if isinstance(line, str) else line


@pytest.mark.parametrize("paths", PATHS, ids=["built-in", "own"])
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(written(), min_size=30, max_size=60))
def test_lines_of_every_kind_make_the_rows_that_the_rules_name(found: list[str], paths: SourceSettings) -> None:
    check(found, paths)


@pytest.mark.full
@pytest.mark.parametrize("paths", PATHS, ids=["built-in", "own"])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(written(), min_size=30, max_size=60))
def test_thousands_of_lines_make_the_rows_that_the_rules_name(found: list[str], paths: SourceSettings) -> None:
    check(found, paths)


numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from(["-0", "1e400", "-1E-400", "01", "1.", "18446744073709551616", "NaN"])
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(value=json_values, ascii_only=st.booleans(), cut=st.integers(0, 40))
def test_the_fast_parser_reads_what_it_accepts_as_json_does(value: object, ascii_only: bool, cut: int) -> None:
    whole = json.dumps(value, ensure_ascii=ascii_only)
    for text in (whole, whole[:-cut], whole.replace('"', ""), f'{{"a": 1, "a": {whole}}}'):
        try:
            fast = msgspec.json.decode(text.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            continue
        slow = json.loads(text)
        assert repr(fast) == repr(slow)
