"""Reading JSON-lines logs: every line that is not blank is a row, read or refused with the reason."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_prep.readers.log_file import read_logs
from data_prep.readers.log_lines import LONGEST_LINE
from data_prep.readers.log_paths import parse_path
from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS, ROWS, SCORES, TEXTS
from reward.records.files import BadInput
from reward.records.sample import Hit
from reward.settings.data import SourceSettings

HITS = [{"content": "鱼油每日一次", "score": 0.5, "reranker_score": 0.9, "rank": 1}, {"content": "随餐", "score": 0.6}]


def a_line(number: int = 0, **response: object) -> dict[str, Any]:
    """As the service logs a request."""
    return {
        "timestamp": f"2026-11-01T10:{number // 60 % 60:02d}:{number % 60:02d}",
        "payload": {"query": f"鱼油怎么吃{number}", "history": [], "top_k": 5},
        "response": {"rewritten_query": f"鱼油服用方法{number}", "user_profile": "45岁女性", **response},
    }


def as_lines(*values: object) -> bytes:
    """bytes and texts stand as they are, anything else as JSON."""
    lines = (v if isinstance(v, bytes) else (v if isinstance(v, str) else dumps(v)).encode() for v in values)
    return b"\n".join(lines) + b"\n"


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def read(path: Path, *values: object, required: tuple[str, ...] = (), **paths: list[str]) -> list[dict[str, Any]]:
    """The rows of a file of `values`, or of the file that is there."""
    if values:
        path.write_bytes(as_lines(*values))
    batches = list(read_logs(path, SourceSettings(log_paths=paths), required))
    assert all(batch.schema == ROWS for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "service.log"


def test_a_service_log(log: Path) -> None:
    line = a_line(1, history_summary="问过钙片", recall=HITS, thought_unit="先问用法")
    line |= {"tenant_id": "fivedoctors", "request_id": 17, "model": "qwen-32b", "latency_ms": 3}
    assert read(log, line) == [
        {
            "file": str(log),
            "sheet": "",
            "row": 1,
            "refused": "",
            "source": "production_log",
            "original_query": "鱼油怎么吃1",
            "user_profile": "45岁女性",
            "history_summary": "问过钙片",
            "history_context": "",
            "thought_unit": "先问用法",
            "rewritten_query": "鱼油服用方法1",
            "recall_results": dumps(
                [
                    {"content": "鱼油每日一次", "score": 0.5, "reranker_score": 0.9, "doc_id": None},
                    {"content": "随餐", "score": 0.6, "reranker_score": None, "doc_id": None},
                ]
            )
            .replace(": ", ":")
            .replace(", ", ","),
            "query_id": "17",
            "timestamp": "2026-11-01T10:00:01",
            "model": "qwen-32b",
            "tenant_id": "fivedoctors",
            "error": "",
            "top1_score": 0.9,
            "avg_top3_score": 0.75,
            "quality_score": None,
            "recall_count": 2,
            "success": None,
            "slices": [],
            "remarks": [],
        }
    ]


@pytest.mark.parametrize("column", TEXTS)
def test_every_built_in_path_is_read(log: Path, column: str) -> None:
    lines = []
    for path in LOG_PATHS[column]:
        line: dict[str, Any] = {} if column == "original_query" else {"query": "x"}
        node = line
        *parents, key = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = {"recall_results": HITS, "timestamp": "2026-11-01T00:00:00"}.get(column, "有")
        lines.append(line)
    rows = read(log, *lines)
    assert [row["refused"] for row in rows] == [""] * len(lines)
    assert len({str(row[column]) for row in rows}) == 1 and rows[0][column]
    nested = ["." in path for path in LOG_PATHS[column]]
    assert [row["source"] == "production_log" for row in rows] == nested


def test_every_heading_is_read_in_a_flat_line(log: Path) -> None:
    values: dict[str, Any] = {name: name for name in TEXTS} | {name: 0.5 for name in SCORES}
    values |= {
        "recall_results": HITS,
        "timestamp": "2026-11-01T00:00:00",
        "recall_count": 2,
        "success": True,
        "slices": "a, b",
    }
    names = [(name, name) for name in COLUMNS] + list(ALIASES.items())
    rows = read(log, *({"query": "x"} | {key: values[name]} for key, name in names))
    for (key, name), row in zip(names, rows, strict=True):
        assert row["refused"] == "" and row["source"] == "test_set", key
        expected = "x" if name == "original_query" and key != "query" else values[name]
        if name == "original_query":
            assert row[name] in ("x", "original_query")
        elif name == "recall_results":
            assert [Hit.model_validate(hit).relevance for hit in json.loads(row[name])] == [0.9, 0.6]
        else:
            assert row[name] == (["a", "b"] if name == "slices" else expected), key


def test_the_first_path_that_is_not_empty_counts_and_the_tenants_own_come_first(log: Path) -> None:
    line = a_line() | {
        "query": "平的",
        "用户画像": "unread in a nested line",
        "ask": {"it": ""},
        "a.b": {"c d": "自己的"},
    }
    line["payload"]["user_profile"] = "unread: response has one"
    line["response"]["rewritten_query"] = ""
    line["rewritten_query"] = "平的改写"
    rows = read(log, line, original_query=["ask.it", '$."a.b".c d'])
    assert [(r["original_query"], r["user_profile"], r["rewritten_query"]) for r in rows] == [
        ("自己的", "45岁女性", "平的改写")
    ]


def test_a_path_through_a_list_or_one_that_crosses_another(log: Path) -> None:
    answer = {"choices": [{"message": {"content": "改写", "hits": HITS}}]}
    lines = [
        a_line(rewritten_query="") | {"Payload": {"query": "other case"}, "answer": answer},
        a_line(rewritten_query="") | {"answer": json.dumps(answer)},
        a_line() | {"answer": {"choices": []}},
        "broken",
    ]
    rows = read(
        log,
        *lines,
        rewritten_query=["answer.choices[0].message.content"],
        recall_results=["$.answer.choices[0].message.hits"],
        original_query=["Payload.query"],
        thought_unit=["payload"],
    )
    assert [r["original_query"] for r in rows] == ["other case", "鱼油怎么吃0", "鱼油怎么吃0", ""]
    assert [r["rewritten_query"] for r in rows] == ["改写", "改写", "鱼油服用方法0", ""]
    assert [r["top1_score"] for r in rows] == [0.9, 0.9, None, None]
    assert json.loads(rows[0]["thought_unit"])["top_k"] == 5
    assert rows[3]["refused"].startswith("not JSON")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("query", ("query",)),
        ("$.payload.query", ("payload", "query")),
        ('payload."user.query"', ("payload", "user.query")),
        ("a[0].b c[12]", ("a", 0, "b c", 12)),
        ("消息.$date", ("消息", "$date")),
        ("", None),
        ("a..b", None),
        ("a.", None),
        ("a[*]", None),
        ("a[-1]", None),
        ("[0].a", None),
        ("a.[0]", None),
        ("$..a", None),
        ("a*", None),
        ('a"b', None),
    ],
)
def test_paths(text: str, steps: tuple[object, ...] | None) -> None:
    path = parse_path(text)
    assert (path.steps if path else None) == steps


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({"original_query": ["a[*].b"]}, ["sources.log_paths.original_query", "a[*].b"]),
        ({"orginal_query": ["a"]}, ["sources.log_paths", "no column orginal_query"]),
    ],
)
def test_a_setting_that_cannot_be_used(log: Path, paths: dict[str, list[str]], words: list[str]) -> None:
    with pytest.raises(BadInput) as problem:
        read(log, a_line(), **paths)
    assert all(word in str(problem.value) for word in words)


REFUSED: list[tuple[object, str]] = [
    ("not json", "not JSON (Expecting value: column 1)"),
    (dumps(a_line())[:50], "not JSON ("),
    (dumps(a_line()) * 2, "not JSON (Extra data"),
    ("[1, 2]", "expected an object, found a list"),
    ('"text"', "expected an object, found a text"),
    ("17", "expected an object, found a number"),
    ("null", "expected an object, found null"),
    ("{}", "original_query: nothing at payload.query, data.query, query, original_query"),
    (b'{"payload": {"query": "\xff\xfe"}}', "bytes that are no text"),
    ('{"payload": {"query": "\\ud83d"}}', "original_query: half a character"),
    ('{"a": ' + "[" * 100_000, "not JSON (a number too long, or nested too deeply)"),
    ('{"payload": {"query": ' + "1" * 5000 + "}", "not JSON (a number too long"),
    ({"payload": "oops"}, "original_query: nothing at payload.query"),
    ({"payload": {"query": None}}, "original_query: nothing at payload.query"),
    ({"payload": {"query": {"text": "x"}}}, "original_query: expected a text, found an object"),
    ({"payload": {"query": ["x"]}}, "original_query: expected a text, found a list"),
    ({"query": "\u200b \u3000"}, "original_query: nothing at payload.query"),
    (a_line(rewritten_query=["x"]), "rewritten_query: expected a text, found a list"),
    (a_line(recall="无"), "recall_results: "),
    (a_line(recall={"content": "x"}), "recall_results: expected a list of hits"),
    (a_line(recall=[1]), "recall_results: hit 1 "),
    (a_line(recall=[*HITS, {"score": 1}]), "recall_results: hit 3 "),
    (a_line(recall=[{"content": "x", "score": "高"}]), "recall_results: hit 1: score"),
    (a_line(recall=[*HITS, {"content": "x", "score": 1, "reranker_score": "高"}]), "recall_results: hit 3: reranker_s"),
    (dumps(a_line(recall=HITS * 3)).replace("0.6", "1e999"), "recall_results: hit 2: score"),
    (a_line() | {"top1_score": "abc"}, "top1_score: not a number: 'abc'"),
    (a_line() | {"recall_count": -1}, "recall_count: not a count: -1"),
    (a_line() | {"recall_count": 2.5}, "recall_count: not a count: 2.5"),
    (a_line(success="也许"), "success: neither true nor false: '也许'"),
    ({"query": "x", "history": [{"q": "x"}]}, "history_context: expected a text or a list of {role, content}"),
    ({"query": "x", "history": ["x"]}, "history_context: expected a text or a list"),
    ({"query": "x", "history": {"role": "user"}}, "history_context: expected a text or a list"),
]


def test_bad_lines_are_refused_with_their_number_and_nothing_else_is_lost(log: Path) -> None:
    values: list[object] = []
    for number, (bad, _) in enumerate(REFUSED):
        values += [a_line(number, recall=HITS), "", bad, b" \t\r"]
    rows = read(log, *values)
    assert [row["row"] for row in rows] == sorted([*range(1, len(values), 4), *range(3, len(values), 4)])
    for number, (_, reason) in enumerate(REFUSED):
        good, bad = rows[2 * number : 2 * number + 2]
        assert good["refused"] == "" and good["original_query"] == f"鱼油怎么吃{number}" and good["top1_score"] == 0.9
        assert bad["refused"].startswith(reason), bad["refused"]


def test_what_is_unusual_but_clear_is_read(log: Path) -> None:
    rows = read(
        log,
        {"payload": {"query": 5}},
        {"payload": {"query": "[表情] 你好"}},
        '{"payload": {"query": "ok"}, "unread": "\\ud83d"}',
        {"payload": dumps({"query": "packed"}), "response": dumps({"rewritten_query": "r", "recall": HITS})},
        a_line(rewritten_query="") | {"response": dumps({"rewritten_query": "r"})},
        a_line(recall=dumps(HITS)),
        a_line(recall=[]),
        a_line(recall=[{"content": "no score"}]),
        a_line(recall=None, user_profile={"age": 45, "标签": ["孕妇"]}),
        {"Query": " x ", "USER_PROFILE": "p"},
        {"query": "x", "source": "production_log"},
        {"query": "x", "source": "elsewhere", "top1_score": "0.5", "recall_count": "3.0", "success": "成功"},
        a_line(recall=HITS, success=0) | {"top1_score": 0.1, "avg_top3_score": 0.2, "recall_count": 7},
        '{"payload": {"query": "nul\\u0000"}, "x": NaN}\r',
    )
    assert [row["refused"] for row in rows] == [""] * len(rows)
    assert [r["original_query"] for r in rows[:4]] == ["5", "[表情] 你好", "ok", "packed"]
    assert [r["top1_score"] for r in rows[3:8]] == [0.9, None, 0.9, None, None]
    assert [r["recall_count"] for r in rows[3:9]] == [2, None, 2, 0, 1, None]
    assert [r["rewritten_query"] for r in rows[3:5]] == ["r", "r"]
    assert json.loads(rows[8]["user_profile"]) == {"age": 45, "标签": ["孕妇"]}
    assert (rows[9]["original_query"].strip(), rows[9]["user_profile"]) == ("x", "p")
    assert [r["source"] for r in rows[9:12]] == ["test_set", "production_log", "test_set"]
    assert (rows[11]["top1_score"], rows[11]["recall_count"], rows[11]["success"]) == (0.5, 3, True)
    recorded = [rows[12][name] for name in ("top1_score", "avg_top3_score", "recall_count", "success")]
    assert recorded == [0.1, 0.2, 7, False]
    assert rows[13]["original_query"] == "nul\0"


@pytest.mark.parametrize(
    ("hits", "top1", "top3"),
    [
        ([{"score": 0.4}], 0.4, 0.4),
        ([{"score": 0.4, "reranker_score": 0.8}, {"score": 0.6}], 0.8, 0.7),
        ([{"score": 0.4, "reranker_score": None}, {}, {"score": 0.2}, {"score": 1}], 0.4, 0.2),
        ([{"score": 1}, {"score": 0.5}, {"score": 0.3}, {"score": 0.9}], 1.0, 0.6),
    ],
)
def test_scores_of_hits_are_those_the_reward_reads(
    log: Path, hits: list[dict[str, Any]], top1: float, top3: float
) -> None:
    hits = [{"content": "c", "doc_id": 3} | hit for hit in hits]
    for row in read(log, a_line(recall=hits), a_line(recall=dumps(hits))):
        recorded = [Hit.model_validate(hit) for hit in json.loads(row["recall_results"])]
        assert [hit.doc_id for hit in recorded] == ["3"] * len(hits)
        assert row["top1_score"] == recorded[0].relevance == top1
        assert row["avg_top3_score"] == pytest.approx(sum(h.relevance for h in recorded[:3]) / len(recorded[:3]))
        assert row["avg_top3_score"] == pytest.approx(top3)


def test_a_dialogue_of_messages_becomes_lines(log: Path) -> None:
    turns = [
        {"role": "system", "content": "你是客服"},
        {"role": "User", "content": "在吗\n 我想问"},
        {"role": "assistant", "content": "在的"},
        {"role": "tool", "content": "{}"},
    ]
    said = "用户: 在吗 我想问\n助手: 在的"
    line = a_line()
    rows = []
    for history in (turns, dumps(turns), said, [], None, "[]"):
        line["payload"]["history"] = history
        rows += read(log, line, line | {"slices": ["a"]})
    assert [row["history_context"] for row in rows] == [said] * 6 + [""] * 6
    assert not any(row["refused"] for row in rows)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-11-01T10:00:00", "2026-11-01T10:00:00"),
        ("2026-11-01T10:00:00.123Z", "2026-11-01T10:00:00.123+00:00"),
        ("2026-11-01 10:00:00+08:00", "2026-11-01T10:00:00+08:00"),
        ("2026-11-01", "2026-11-01T00:00:00"),
        ("2026/11/1 9:05:00", "2026-11-01T09:05:00"),
        (1793527200, "2026-11-01T10:00:00+00:00"),
        ("1793527200", "2026-11-01T10:00:00+00:00"),
        (1793527200123, "2026-11-01T10:00:00.123000+00:00"),
        ("2026-02-30T10:00:00", ""),
        ("gestern", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_timestamps(log: Path, written: object, read_as: str) -> None:
    line = a_line() | {"timestamp": written}
    assert [row["timestamp"] for row in read(log, line, line | {"slices": ["a"]})] == [read_as] * 2


@pytest.mark.parametrize(
    ("line", "profile"),
    [
        ('{"query": "x", "user_profile": "a", "user_profile": "b"}', "b"),
        ('{"payload": {"query": "x"}, "response": {"user_profile": "a"}, "response": {"user_profile": "b"}}', "b"),
        ('{"query": "x", "user_profile": null, "User_Profile": "a"}', "a"),
        ('{"query": "x", "user-profile": "nan", "User_Profile": "a", "userProfile": "b"}', "a"),
        ('{"query": "x", "response": null, "Response": {"User_Profile": "a"}}', "a"),
        ('{"query": "x", "response": "", "Response": "{\\"user_profile\\": \\"a\\"}"}', "a"),
        ('{"query": "x", "response": {}, "用户画像": "a"}', "a"),
    ],
)
def test_of_equal_keys_the_last_counts_and_of_like_ones_the_first_that_holds_something(
    log: Path, line: str, profile: str
) -> None:
    many = ['{"payload": {"query": "x"}, "user_profile": "other shape"}', line] * 3
    assert [row["user_profile"] for row in read(log, *many)] == ["other shape", profile] * 3


def test_a_log_whose_keys_never_repeat(log: Path) -> None:
    rows = read(log, *({"query": f"q{n}", f"key{n}": n, "response": {f"k{n}": 1, "model": "m"}} for n in range(5_000)))
    assert [(row["original_query"], row["model"]) for row in rows] == [(f"q{n}", "m") for n in range(5_000)]


def test_a_line_that_is_looked_at_alone_is_read_as_the_many_are(log: Path) -> None:
    """Lines of another shape, with slices, are read as those without."""
    draw = random.Random(5)
    pick = draw.choice
    lines = []
    for number in range(400):
        hit = {"content": pick(["甲", 'quoted "x"', "a\nb", "null,null"]), "score": pick([0.25, 1, None])}
        hits = [hit | pick([{}, {"reranker_score": pick([0.5, None])}, {"doc_id": pick(["d", 7])}]) for _ in range(4)]
        line = a_line(number, recall=pick([None, [], hits[: draw.randrange(5)], hits]))
        line["payload"]["history"] = pick([None, "", "用户: 你好", [{"role": "human", "content": " a \t b "}], []])
        line["response"] |= {
            "user_profile": pick([None, "", "画像", ["a", {"b": 1}]]),
            "success": pick([None, True, 0]),
        }
        line |= pick([{}, {"top1_score": pick(["", "0.125", 1])}, {"recall_count": pick([3, "4"])}])
        line |= {"query_id": pick([None, 7, "x"]), "timestamp": pick(["2026-11-01 10:00:00", 1793527200, None])}
        flat = {**line, **line["payload"], **line["response"]}
        del flat["payload"], flat["response"]
        if pick([True, False]):
            flat["用户画像"] = flat.pop("user_profile")
        lines.append(pick([line, flat]))
    many, alone = read(log, *lines), read(log, *(line | {"slices": ["a"]} for line in lines))
    assert all(row.pop("slices") == ["a"] for row in alone)
    assert not any(row.pop("slices") for row in many)
    assert many == alone
    assert not any(row["refused"] for row in many)


def test_lines_stay_in_order_over_batches(log: Path) -> None:
    lines = [a_line(n, recall=HITS, history_summary="长" * 900) if n % 7 else "?" for n in range(1, 5_001)]
    log.write_bytes(as_lines(*lines))
    batches = list(read_logs(log, SourceSettings(), ()))
    assert len(batches) > 1
    rows = pa.Table.from_batches(batches)
    assert rows["row"].to_pylist() == list(range(1, 5_001))
    asked = [f"鱼油怎么吃{n}" if n % 7 else "" for n in range(1, 5_001)]
    assert rows["original_query"].to_pylist() == asked
    partly = read_logs(log, SourceSettings(), ())
    assert next(partly).num_rows < 5_000
    partly.close()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_encodings(log: Path, encoding: str, ends: str) -> None:
    lines = [dumps(a_line(n)) for n in range(40)]
    log.write_bytes(ends.join(lines).encode(encoding))
    rows = read(log)
    assert [(r["row"], r["original_query"], r["refused"]) for r in rows] == [
        (n + 1, f"鱼油怎么吃{n}", "") for n in range(40)
    ]


def test_one_torn_character_makes_no_other_encoding(log: Path) -> None:
    torn = dumps(a_line(1)).encode().replace("鱼".encode(), "鱼".encode()[:2])
    rows = read(log, a_line(0), torn, a_line(2))
    assert [(r["original_query"], r["refused"]) for r in rows] == [
        ("鱼油怎么吃0", ""),
        ("", "bytes that are no text"),
        ("鱼油怎么吃2", ""),
    ]
    broken = dumps(a_line(1)).encode("gb18030").replace("吃".encode("gb18030"), b"\xff\xff")
    rows = read(log, *(dumps(a_line(n)).encode("gb18030") for n in (0, 2)), broken)
    assert [(r["original_query"], bool(r["refused"])) for r in rows] == [
        ("鱼油怎么吃0", False),
        ("鱼油怎么吃2", False),
        ("", True),
    ]


def packed(data: bytes, kind: str) -> bytes:
    if kind == ".gz":
        return gzip.compress(data)
    if kind == ".bz2":
        return bz2.compress(data)
    if kind == "skippable":  # a frame of a tool's own before zstd's, as pzstd and seekable archives have it
        return b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note" + packed(data, ".zst")
    return pa.Codec("zstd").compress(data, asbytes=True) if kind == ".zst" else data


@pytest.mark.parametrize("kind", ["", ".gz", ".zst", ".bz2", "skippable"])
def test_packed_files_in_one_part_or_more(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"service.jsonl{kind}"
    path.write_bytes(packed(as_lines(a_line(0), ""), kind) + packed(as_lines(a_line(1), "?"), kind))
    assert [(r["row"], r["refused"][:8]) for r in read(path)] == [(1, ""), (3, ""), (4, "not JSON")]
    misnamed = tmp_path / "service.jsonl"
    misnamed.write_bytes(path.read_bytes())
    assert len(read(misnamed)) == 3


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (".gz", "cut off"),
        (".gz", "flipped"),
        (".gz", "garbage behind"),
        (".zst", "cut off"),
        (".zst", "garbage behind"),
    ],
)
def test_lines_before_the_damage_are_not_lost(tmp_path: Path, kind: str, damage: str) -> None:
    draw = random.Random(3)
    lines = [a_line(n) | {"noise": draw.randbytes(30).hex()} for n in range(4_000)]
    data = bytearray(packed(as_lines(*lines), kind))
    path = tmp_path / f"service.log{kind}"
    if damage == "cut off":
        data = data[: len(data) * 2 // 3]
    elif damage == "flipped":
        data[len(data) // 2 : len(data) // 2 + 60] = draw.randbytes(60)
    else:
        data += b"garbage"
    path.write_bytes(data)
    rows = read(path)
    last = rows[-1]
    assert last["refused"].startswith("the file is damaged or cut off") and last["row"] == rows[-2]["row"] + 1
    assert [r["row"] for r in rows] == list(range(1, len(rows) + 1))
    good = [r for r in rows if not r["refused"]]
    assert len(good) > (1500 if damage != "garbage behind" else 3_999)
    assert all(r["original_query"] == f"鱼油怎么吃{r['row'] - 1}" for r in good[:1500])
    for beginning in (5, 20):
        path.write_bytes(data[:beginning])
        with pytest.raises(BadInput, match=r"service\.log.*(damaged|JSON)"):
            read(path)


def test_a_line_longer_than_any_request(log: Path) -> None:
    huge = a_line(1, user_profile="x" * (LONGEST_LINE + 10_000_000))
    large = a_line(2, user_profile="y" * (LONGEST_LINE // 2))
    rows = read(log, huge, large, "", a_line(3), dumps(huge)[:-1])
    assert [(r["row"], r["refused"]) for r in rows] == [
        (1, "the line is longer than 8 MiB"),
        (2, ""),
        (4, ""),
        (5, "the line is longer than 8 MiB"),
    ]
    assert len(rows[1]["user_profile"]) == LONGEST_LINE // 2


def test_a_bomb_of_one_line_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "bomb.log.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(as_lines(a_line(0)))
        for _ in range(40):
            out.write(b" " * (8 << 20))
        out.write(b"\n" + as_lines(a_line(2)))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    rows = read(path)
    peak = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    assert [(r["row"], bool(r["refused"])) for r in rows] == [(1, False), (2, True), (3, False)]
    assert peak < 100 << 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\n \r\n", "every line is blank"),
        (b"plain text\nmore", "expected one JSON object a line; line 1: not JSON"),
        (b"\n[1]\n[2]\n", "line 2: expected an object, found a list"),
        (b'[["a", "b"],\n["c", "d"]]', "line 1: expected an object, found a text"),
        (b"PK\x03\x04\x14\0\x06\0" + bytes(range(256)), "expected one JSON object a line"),
        (dumps({"frage": "x"}).encode(), "no line has original_query: nothing at payload.query"),
        (dumps({"query": "x"}).encode(), "no line has rewritten_query: nothing at response.rewritten_query"),
    ],
)
def test_a_file_that_is_no_log_is_told_in_one_line(log: Path, content: bytes, words: str) -> None:
    log.write_bytes(content)
    with pytest.raises(BadInput) as problem:
        read(log, required=("original_query", "rewritten_query", "top1_score", "success"))
    assert str(problem.value).startswith(f"{log}: ") and words in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.log: cannot be read: No such file"):
        read(tmp_path / "none.log")


def test_required_texts_may_be_empty_in_some_lines(log: Path) -> None:
    lines = [{"payload": {"query": "x"}}, {"原始问题": "y", "改写问题": "z"}]
    rows = read(log, *lines, required=("original_query", "rewritten_query"))
    assert [(r["original_query"], r["rewritten_query"]) for r in rows] == [("x", ""), ("y", "z")]
    log.write_text("\n".join(map(json.dumps, lines)))  # keys escaped
    assert len(read(log, required=("original_query", "rewritten_query"))) == 2


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_bytes_every_line_is_a_row(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    hostile = [
        "\ud800".encode("utf-8", "surrogatepass"),
        b"\0",
        b'"',
        b"\\",
        b"\n",
        b"\r",
        b"\xff",
        b"{",
        b"[",
        b"1e999",
    ]
    lines = [a_line(n, recall=HITS) for n in range(30)]
    data = bytearray(as_lines(*lines, *([{"query": "平的", "召回内容": HITS}] * 5)))
    for _ in range(draw.choice([1, 5, 60])):
        place = draw.randrange(len(data))
        kind = draw.randrange(4)
        if kind == 0:
            data[place] = draw.randrange(256)
        elif kind == 1:
            data[place:place] = draw.choice(hostile)
        elif kind == 2:
            del data[place : place + draw.randrange(20)]
        else:
            other = draw.randrange(len(data))
            data[place : place + 30] = data[other : other + 30]
    path = tmp_path / "fuzz.log"
    path.write_bytes(data)
    rows = read(path)
    blank_or_not = [bool(line.strip()) for line in bytes(data).split(b"\n")]
    assert [row["row"] for row in rows] == [n for n, some in enumerate(blank_or_not, start=1) if some]
    for row in rows:
        assert row["refused"] or row["original_query"]
        if row["recall_results"]:
            assert all(Hit.model_validate(hit) for hit in json.loads(row["recall_results"]))
    for kind in (".gz", ".zst"):
        squeezed = bytearray(packed(bytes(data), kind))
        squeezed[draw.randrange(8, len(squeezed))] ^= 1 << draw.randrange(8)
        path.write_bytes(squeezed)
        try:
            found = read(path)
        except BadInput as problem:
            assert "\n" not in str(problem)
        else:
            assert [row["row"] for row in found] == sorted({row["row"] for row in found})


def test_hits_under_an_escaped_heading_are_refused_too(log: Path) -> None:
    lines = [{"query": "鱼油"}, {"query": "鱼油", "召回结果": "1767323045"}]
    for escaped in (True, False):
        log.write_text("\n".join(json.dumps(line, ensure_ascii=escaped) for line in lines), encoding="utf-8")
        refused = [row["refused"] for row in read(log)]
        assert refused == ["", "recall_results: expected a list of hits, found int"]


def test_half_a_character_that_is_no_time_is_named(log: Path) -> None:
    rows = read(log, '{"query": "x", "timestamp": "\\ud800 昨天"}')
    assert [(row["refused"], row["remarks"]) for row in rows] == [("", ["timestamp: not understood (? 昨天)"])]


@pytest.mark.parametrize("key", ["@timestamp", "Timestamp", "ts", "log_time", "created_at", "datetime"])
def test_the_time_of_a_line_is_under_any_usual_key(log: Path, key: str) -> None:
    line = a_line()
    del line["timestamp"]
    rows = read(log, line | {key: "2026-11-01T10:00:00.123Z"}, {"_source": line | {key: "Nov 1, 2026 @ 10:00:00.123"}})
    assert [row["timestamp"] for row in rows] == ["2026-11-01T10:00:00.123+00:00", "2026-11-01T10:00:00.123000"]
