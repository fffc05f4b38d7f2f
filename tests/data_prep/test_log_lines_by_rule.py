"""Whatever a log line holds, its row is what the rules say, as written out here one line and one column at a time."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.readers.log_file import read_logs
from data_prep.readers.log_paths import parse_path, shown
from data_prep.rows.cells import parse_columns
from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS, TEXTS
from data_prep.rows.dialogue import asked_last, turns_in, unpacked
from data_prep.rows.envelopes import ANSWERED, CHATS, ENVELOPES, TELLING
from data_prep.rows.headings import heading_key
from data_prep.rows.missing import is_missing
from data_prep.rows.missing import spelled as spelt
from data_prep.rows.packed_texts import packed_problem
from plain_text.thinking import without_thinking
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
clean_inner = st.fixed_dictionaries({}, optional=dict.fromkeys(("query", "rewrite", "history", "画像"), st.just("内")))
inner = st.dictionaries(st.sampled_from(INNER), values, max_size=5)
wrapped = st.recursive(
    st.one_of(inner, clean_inner),
    lambda within: st.dictionaries(
        st.sampled_from(("data", "result", "output", "choices", "message", "content", "context", "Body", "request")),
        st.one_of(within, within.map(json.dumps), within.map(lambda one: [one]), st.lists(within, max_size=2), within),
        min_size=1,
        max_size=2,
    ),
    max_leaves=4,
)
parts = st.one_of(wrapped, inner, inner.map(json.dumps), inner.map(lambda part: json.dumps(json.dumps(part))), scalars)
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
texts_around = st.sampled_from(
    (
        '{"rewritten_query": "维生素C 服用',
        '<think>想</think>{"rewritten_query": "内"}',
        '好的：\n```json\n{"rewritten_query": "内"}\n```',
        '"{\\"query\\": \\"x\\"}"',
        "只是文字",
    )
)
OUTER = (*COLUMNS, *sorted(ALIASES), "source", "other", "User_Profile", " history_summary ", "QUERY", "Top1 Score")
lines = st.builds(
    lambda flat, nested: flat | nested,
    st.dictionaries(st.sampled_from(OUTER), values, max_size=5),
    st.dictionaries(
        st.sampled_from(
            ["payload", "response", "data", "Payload", "context", "messages", "message", "result", "payload.query"]
        ),
        st.one_of(parts, parts, texts_around, st.lists(clean_turns, min_size=1, max_size=3)),
        max_size=3,
    ),
)


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
        node = next((value for value in map(content, spelled(node, step)) if isinstance(value, dict | list)), None)
    return spelled(node, steps[-1])


def named_values(line: dict[str, Any], name: str, settings: SourceSettings) -> tuple[Any, Any, list[object]]:
    """The tenant's paths of a column, all its paths, and what is at them and under its headings."""
    own = [parse_path(path) for path in settings.log_paths.get(name, ())]
    places = [path.steps for path in own if path] + [tuple(path.split(".")) for path in LOG_PATHS.get(name, ())]
    headings = [name, *(alias for alias, column in ALIASES.items() if column == name)]
    values = [value for steps in places for value in held(line, steps)]
    values += [line[heading] for heading in headings if heading in line]
    values += [value for heading in headings for value in spelled(line, heading)]
    return own, places, values


def content(value: object) -> object:
    """What is packed into a text, behind thinking and within fences too."""
    for _ in range(2):
        if not isinstance(value, str):
            return value
        told = without_thinking(value)
        fenced = re.search(r"```[a-z]*\s*([{\[].*?)\s*```", told, re.DOTALL | re.IGNORECASE)
        read = unpacked(value)
        value = read if read is not None else unpacked(fenced[1] if fenced else told)
    return value


def allowed(steps: tuple[str | int, ...]) -> bool:
    """Whether what a service logs may be within: envelopes, lists of one, and a context last."""
    named = [step for step in steps if isinstance(step, str)]
    return len(steps) <= 8 and set(named) <= {*ENVELOPES, "context"} and "context" not in named[:-1]


def objects_of(line: dict[str, Any], settings: SourceSettings) -> tuple[list[tuple[Any, dict[str, Any]]], list[str]]:
    """The (steps, object) that are looked at in a line, and what is remarked of texts in their places."""
    texts = [path for paths in (*settings.log_paths.values(), *LOG_PATHS.values()) for path in paths]
    leaves = [path.steps for text in texts if (path := parse_path(text))]
    own = [path.steps for paths in settings.log_paths.values() for text in paths if (path := parse_path(text))]
    named = list(dict.fromkeys(steps[:length] for steps in leaves for length in range(1, len(steps))))
    found: list[tuple[Any, Any]] = [((), line)]
    remarks: list[str] = []
    for steps, node in found:
        if isinstance(node, dict):
            within: list[str | int] = [heading_key(key) for key in node]
        else:
            within = [0] if len(node) == 1 else []
        within = [step for step in within if allowed(steps) and allowed((*steps, step))]
        for step in dict.fromkeys([inner[-1] for inner in named if inner[:-1] == steps] + within):
            values = spelled(node, step)
            opened = [isinstance(content(value), dict | list) for value in values]
            for value in values[: opened.index(True) + 1 if any(opened) else None]:
                thinks = isinstance(value, str) and "{" in value and without_thinking(value) != value
                if thinks and unpacked(value) is None:
                    remarks.append(f"{shown((*steps, step))}: <think> stripped")
            inner = next((value for value in map(content, values) if isinstance(value, dict | list)), None)
            if inner is not None:
                found.append(((*steps, step), inner))
                continue
            for value in values if (*steps, step) not in own else ():
                if isinstance(value, str) and not is_missing(value):
                    if problem := packed_problem(value):
                        remarks.append(f"{shown((*steps, step))}: packed JSON cannot be read ({problem})")
                    elif step in TELLING:
                        remarks.append(f"{shown((*steps, step))}: a text, not read")
    return [(steps, node) for steps, node in found if isinstance(node, dict) and allowed(steps)], remarks


def in_envelopes(objects: list[tuple[Any, dict[str, Any]]], column: str) -> list[tuple[Any, object]]:
    """(steps, value) of what the envelopes of a line hold of a column, in the order in which they count."""
    keys = {path.split(".")[-1] for path in LOG_PATHS.get(column, ())}
    keys |= {alias for alias, name in ALIASES.items() if name == column and column in TEXTS}
    keys = {heading_key(key) for key in keys - {"summary", "profile", "id", "time"}}
    found = []
    for steps, node in objects:
        for key, value in node.items():
            *around, last = key.split(".")
            inside = (*steps, *map(heading_key, around))
            before = column in ("user_profile", "history_summary", "history_context", "thought_unit")
            if heading_key(last) in keys and inside and allowed(inside) and ("context" not in inside or before):
                found.append((inside, value))
    of_answer = column in ("rewritten_query", "recall_results", "thought_unit", "model", "success", "error")
    return sorted(found, key=lambda one: (ANSWERED.isdisjoint(one[0]) == of_answer, len(one[0]), shown(one[0])))


def plainly(text: str, row: int, file: str, settings: SourceSettings) -> dict[str, Any]:
    """The row of one line, by the rules as they are written down, one line and one column after another."""
    line = json.loads(text)
    line = unpacked(line) if isinstance(line, str) else line
    refused = "" if isinstance(line, dict) else "no object"
    line = line if isinstance(line, dict) else {}
    cells: dict[str, object] = {}
    own_query = inner = False
    objects, log_remarks = objects_of(line, settings)
    for name in COLUMNS:
        own, places, values = named_values(line, name, settings)
        further = in_envelopes(objects, name)
        rewritten = named_values(line, "rewritten_query", settings)[2] or in_envelopes(objects, "rewritten_query")
        if name == "original_query" and not rewritten:
            further = [(steps, value) for steps, value in further if ANSWERED.isdisjoint(steps)]
        if name in ("original_query", "rewritten_query"):
            inner |= bool(further) or any(held(line, steps) for steps in places if len(steps) > 1)
        values += [value for _, value in further]
        nothing: object = [] if name == "recall_results" and ([] in values or "[]" in values) else None
        cell = next((value for value in values if not is_missing(value)), nothing)
        cell = next(filter(spelt, values), None) if cell is None else cell
        if name == "original_query":
            own_query = any(not is_missing(value) for path in own if path for value in held(line, path.steps))
        cells[name] = cell
    assumed = take_turns(objects, cells, log_remarks)
    for name, cell in cells.items():
        if isinstance(cell, dict | list) and name in ("original_query", "rewritten_query") and not refused:
            refused = f"{name}: expected a text, found {'an object' if isinstance(cell, dict) else 'a list'}"
        elif isinstance(cell, dict | list) and name in TEXTS and name not in ("history_context", "recall_results"):
            cells[name] = json.dumps(cell, ensure_ascii=False, separators=(",", ":"))
    if not refused and cells["original_query"] is None:
        looked_at = (*settings.log_paths.get("original_query", ()), *LOG_PATHS["original_query"])
        refused = "; ".join((f"original_query: nothing at {', '.join(looked_at)}", *sorted(log_remarks)))
    columns = {name: [None if refused else cell] for name, cell in cells.items()}
    batch = parse_columns(columns, file=file, sheet="", rows=[row], source="", refused=[refused])
    roots = {path.split(".")[0] for paths in LOG_PATHS.values() for path in paths if "." in path}
    roots |= {str(parse_path(path).steps[0]) for paths in settings.log_paths.values() for path in paths}  # type: ignore[union-attr]
    nested = any(isinstance(opened(line, root), dict) for root in roots)
    broken = any("packed JSON" in one for one in log_remarks)
    source = "production_log" if nested or inner or broken or own_query or assumed or not line else "test_set"
    if line.get("source") in ("production_log", "test_set"):
        source = str(line["source"])
    found = batch.to_pylist()[0]
    return found | {"source": source, "remarks": [*found["remarks"], *log_remarks]}


def take_turns(objects: list[tuple[Any, dict[str, Any]]], cells: dict[str, object], remarks: list[str]) -> bool:
    """Where no dialogue is recorded, the first list of turns is it; without a query, what the user says last is one."""
    asks = [node for steps, node in objects if not (ANSWERED | {"context"}) & set(steps)]
    chats = [(key, value) for node in asks for key, value in node.items() if heading_key(key) in CHATS]
    for key, value in sorted(chats, key=lambda one: one[0] == "context"):
        turns = turns_in(value) if is_missing(cells["history_context"]) else []
        if not turns:
            continue
        asked, query = asked_last(turns), cells["original_query"]
        assumed = is_missing(query) and bool(asked)
        if assumed:
            remarks.append(f"original_query: the last turn of the user, assumed ({key})")
            cells["original_query"] = asked
        elif is_missing(query):
            remarks.append(f"{key}: the last turn is no text of the user: no query")
        same = asked and asked == " ".join(str(cells["original_query"]).split())
        cells["history_context"] = (turns[:-1] if same else turns) or None
        return assumed
    return False


def opened(line: dict[str, Any], root: str) -> object:
    """The first object or list that a key of the line holds, however the key is spelled."""
    return next((value for value in map(content, spelled(line, root)) if isinstance(value, dict | list)), None)


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
        for one in (row, expected):
            one["remarks"] = sorted(one["remarks"])
        differing = {name: (row[name], expected[name]) for name in row if row[name] != expected[name]}
        assert not differing, f"{line}: {differing}"


def opened_line(text: str) -> object:
    line = json.loads(text)
    return unpacked(line) if isinstance(line, str) else line


@pytest.mark.parametrize("paths", PATHS, ids=["built-in", "own"])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=st.lists(written(), min_size=30, max_size=60))
def test_lines_of_every_kind_make_the_rows_that_the_rules_name(found: list[str], paths: SourceSettings) -> None:
    check(found, paths)


@pytest.mark.full
@pytest.mark.parametrize("paths", PATHS, ids=["built-in", "own"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
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
