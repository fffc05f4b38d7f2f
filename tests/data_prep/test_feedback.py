"""Click logs → reranker pairs and RL prompts: what counts, what does not, and that every row is accounted for."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import xlsxwriter

from data_prep import build_feedback
from data_prep.prompt import build_messages
from reward.records.sample import Sample, read_samples
from reward.settings.recipe import load_tenant

TENANT = load_tenant("fivedoctors")
OUTPUTS = ("confident_pairs.jsonl", "quarantine.jsonl", "reranker_pairs.jsonl", "rl_train.jsonl", "rl_val.jsonl")
DOCS = {"d1": "鱼油每日两次，每次一粒", "d2": "鱼油开封后九十天内吃完", "d3": "鱼油含鱼类制品"}


def show(query: str, doc: str, clicked: object, **more: Any) -> dict[str, Any]:
    return {"query": query, "doc_id": doc, "passage": DOCS[doc], "clicked": clicked, **more}


def lists(query: str, times: int, clicked: str = "", **more: Any) -> list[dict[str, Any]]:
    """`times` result lists d1, d2, d3, in each of which the passage `clicked` was clicked."""
    return [
        show(query, doc, doc == clicked, **({"position": rank, "request_id": f"{query} {n}"} | more))
        for n in range(times)
        for rank, doc in enumerate(DOCS, start=1)
    ]


def write(path: Path, rows: Iterable[object]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def build(source: Path, out: Path, *options: str) -> int:
    return build_feedback.main(["--input", str(source), "--tenant", "fivedoctors", "--out", str(out), *options])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures(out: Path) -> dict[str, Any]:
    return json.loads((out / "feedback.json").read_text(encoding="utf-8"))


def prompts(out: Path) -> dict[str, Sample]:
    files = [path for path in (out / "rl_train.jsonl", out / "rl_val.jsonl") if path.read_text()]
    return {sample.original_query: sample for path in files for sample in read_samples(path)}


def check_accounts(out: Path) -> dict[str, int]:
    rows = figures(out)["rows"]
    assert rows["in"] == rows["positive"] + rows["negative"] + rows["ambiguous"] + rows["quarantined"]
    assert rows["quarantined"] == sum("row" in line for line in records(out / "quarantine.jsonl"))
    return rows


def test_a_click_below_the_first_place_is_a_positive_a_negative_and_a_prompt(tmp_path: Path) -> None:
    source = write(tmp_path / "clicks.jsonl", lists("鱼油怎么吃", 12, clicked="d2"))
    out = tmp_path / "out"
    assert build(source, out) == 0
    assert check_accounts(out) == {"in": 36, "positive": 12, "negative": 12, "ambiguous": 12, "quarantined": 0}
    assert records(out / "reranker_pairs.jsonl") == [
        {
            "query_text": "鱼油怎么吃",
            "positives": [{"doc_id": "d2", "text": DOCS["d2"]}],
            # d1 stood above the click and was passed over; whether d3, below it, was seen at all nobody knows.
            "negatives": [{"doc_id": "d1", "text": DOCS["d1"]}],
            "source_chunk": "",
            "meta": {"domain": "fivedoctors", "prompt_style": "click_log"},
        }
    ]
    positive, negative = records(out / "confident_pairs.jsonl")
    assert (positive["verdict"], positive["shown"], positive["seen"], positive["clicked"]) == ("positive", 12, 12, 12)
    assert (negative["verdict"], negative["shown"], negative["seen"], negative["clicked"]) == ("negative", 12, 12, 0)
    sample = prompts(out)["鱼油怎么吃"]
    assert sample.relevant_doc_ids == ("d2",) and sample.metadata.slices == ("clicked_below_first",)
    assert sample.metadata.source == "production_log" and sample.sample_id == "fivedr_rl_click_001"


@pytest.mark.parametrize(
    ("shown", "clicked", "verdict"),
    [
        (2, 2, None),  # too few
        (3, 3, "positive"),
        (5, 3, None),
        (5, 4, "positive"),
        (10, 0, None),
        (11, 0, "negative"),
        (40, 3, "negative"),
        (40, 8, None),
        (40, 18, "positive"),
    ],
)
def test_the_bounds_decide(tmp_path: Path, shown: int, clicked: int, verdict: str | None) -> None:
    source = write(tmp_path / "clicks.jsonl", [show("鱼油怎么吃", "d1", n < clicked) for n in range(shown)])
    assert build(source, tmp_path / "out") == 0
    found = records(tmp_path / "out" / "confident_pairs.jsonl")
    assert [pair["verdict"] for pair in found] == ([verdict] if verdict else [])
    for pair in found:  # the bounds solve Wilson's equation: |rate − bound| = z · sqrt(bound · (1 − bound) / n)
        for bound in (pair["lower"], pair["upper"]):
            deviation = 1.6449 * math.sqrt(bound * (1 - bound) / shown)
            assert abs(clicked / shown - bound) == pytest.approx(deviation, abs=5e-4)


def test_what_the_deployed_system_gets_right_and_what_is_not_known_make_no_prompt(tmp_path: Path) -> None:
    rows = [
        *lists("第一条就对", 12, clicked="d1"),
        *lists("没人点的问题", 12),
        *lists("问得太少", 5),
        *[show("没有名次", doc, doc == "d2") for _ in range(12) for doc in DOCS],
    ]
    out = tmp_path / "out"
    assert build(write(tmp_path / "clicks.jsonl", rows), out) == 0
    queries = figures(out)["queries"]
    assert queries == {
        "clicked_below_first": 0,
        "nothing_clicked": 1,
        "clicked_first": 1,
        "rank_unknown": 1,
        "undecided": 1,
    }
    found = prompts(out)
    assert list(found) == ["没人点的问题"] and found["没人点的问题"].relevant_doc_ids == ()
    # Without positions every showing counts as seen.
    pairs = {(pair["query"], pair["doc_id"]): pair["verdict"] for pair in records(out / "confident_pairs.jsonl")}
    assert pairs["没有名次", "d2"] == "positive" and pairs["没有名次", "d3"] == "negative"
    assert ("没人点的问题", "d1") not in pairs, "nobody knows whether a list without a click was looked at"


def test_places_may_count_from_0(tmp_path: Path) -> None:
    rows = [row | {"position": row["position"] - 1} for row in lists("第一条就对", 12, clicked="d1")]
    rows += [row | {"position": row["position"] - 1} for row in lists("第二条才对", 12, clicked="d2")]
    assert build(write(tmp_path / "clicks.jsonl", rows), tmp_path / "out") == 0
    assert list(prompts(tmp_path / "out")) == ["第二条才对"]


def test_an_impression_and_its_click_event_are_one_showing(tmp_path: Path) -> None:
    shown = [row for n in range(4) for row in lists("鱼油怎么吃", 1, request_id=f"r{n}")]
    events = [row | {"clicked": True} for row in shown if row["doc_id"] == "d2"]
    timed = [
        {k: v for k, v in row.items() if k != "request_id"}
        | {"query": "钙片怎么吃", "timestamp": f"2026-03-01 10:0{n}:00"}
        for n, row in enumerate(events)
        for _ in range(2)
    ]
    dated = [row | {"query": "铁剂怎么吃", "timestamp": "2026-03-01"} for row in timed]
    assert build(write(tmp_path / "clicks.jsonl", [*shown, *events, *timed, *dated]), tmp_path / "out") == 0
    pairs = {pair["query"]: pair for pair in records(tmp_path / "out" / "confident_pairs.jsonl")}
    assert (pairs["鱼油怎么吃"]["shown"], pairs["鱼油怎么吃"]["clicked"]) == (4, 4)
    assert pairs["钙片怎么吃"]["shown"] == 4
    assert pairs["铁剂怎么吃"]["shown"] == 8, "a day tells no lists apart"
    assert check_accounts(tmp_path / "out")["in"] == 12 + 4 + 8 + 8


def test_a_prompt_takes_the_dialogue_under_which_its_passages_were_clicked(tmp_path: Path) -> None:
    fish = {"history_context": "用户: 有鱼油吗\n助手: 有的", "rewritten_query": "鱼油 用法", "user_profile": "老人"}
    rows = lists("这个怎么吃", 12, clicked="d2", **fish)
    rows += [
        show("这个怎么吃", "d1", False, history_context="用户: 有钙片吗", request_id=f"other {n}") for n in range(30)
    ]
    assert build(write(tmp_path / "clicks.jsonl", rows), tmp_path / "out") == 0
    sample = prompts(tmp_path / "out")["这个怎么吃"]
    assert sample.context.history_context == fish["history_context"] and sample.context.user_profile == "老人"
    assert sample.candidates.baseline == "鱼油 用法" and sample.relevant_doc_ids == ("d2",)


def test_rl_parquet_is_the_one_of_build_rl(tmp_path: Path) -> None:
    rows = [
        row for n in range(40) for row in lists(f"第{n}款鱼油{'怎么吃' * (n % 3)}好不好{n * 7919}", 12, clicked="d3")
    ]
    out = tmp_path / "out"
    assert build(write(tmp_path / "clicks.jsonl", rows), out) == 0
    counts = figures(out)["prompts"]
    assert counts["train"] > 20 and sum(counts.values()) + figures(out)["leaking_prompts"] == 40
    for split, count in counts.items():
        frame = pd.read_parquet(out / f"rl_{split}.parquet")
        samples = [Sample.from_extra_info(info) for info in frame["extra_info"]]
        assert len(samples) == count and all(sample.metadata.split == split for sample in samples)
        assert samples == (read_samples(out / f"rl_{split}.jsonl") if count else [])
        for prompt, sample in zip(frame["prompt"], samples, strict=True):
            assert list(prompt) == build_messages(sample, TENANT)


def test_bad_rows_are_quarantined_and_counted(tmp_path: Path) -> None:
    good = lists("鱼油怎么吃", 1)[0]
    rows: list[object] = [
        good,
        "{not json",
        good | {"clicked": "也许"},
        good | {"clicked": None},
        good | {"query": " "},
        good | {"position": -1},
        good | {"doc_id": "", "passage": ""},
        good | {"tenant_id": "chengla"},
        good | {"query": "长" * 201},
        good | {"query": {"a": 1}},
        '{"query": "\\ud800", "clicked": true, "doc_id": "d1"}',
        "[1]",
        "",
        good,
    ]
    assert build(write(tmp_path / "clicks.jsonl", rows), tmp_path / "out") == 0
    reasons = {line["row"]: line["reason"] for line in records(tmp_path / "out" / "quarantine.jsonl")}
    assert check_accounts(tmp_path / "out") == {
        "in": 13,
        "positive": 0,
        "negative": 0,
        "ambiguous": 2,
        "quarantined": 11,
    }
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert reasons[2].startswith("not JSON") and reasons[3].startswith("clicked: neither true nor false")
    assert reasons[4] == "clicked: empty" and reasons[5] == "original_query: empty"
    assert reasons[6].startswith("position: not a count") and reasons[7] == "passage: no text, no doc_id"
    assert "chengla" in reasons[8] and "201" in reasons[9] and reasons[11].startswith("original_query: ")


def test_personal_data_is_masked_in_queries_passages_and_profiles(tmp_path: Path) -> None:
    query = "鱼油怎么吃，我电话13812345678"
    more = {"user_profile": "邮箱zhang@example.com", "passage": "客服电话13987654321"}
    rows = [row | more | {"passage": f"{row['passage']}，{more['passage']}"} for row in lists(query, 12, clicked="d2")]
    assert build(write(tmp_path / "clicks.jsonl", rows), tmp_path / "out") == 0
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert b"13812345678" not in content and b"example.com" not in content and b"13987654321" not in content
    assert figures(tmp_path / "out")["masked"] == {"email": 36, "phone": 72}
    assert len(prompts(tmp_path / "out")) == 1


def test_passages_are_named_by_the_corpus_or_by_their_text(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [{"_id": doc, "text": text} for doc, text in DOCS.items()])
    by_text = [{k: v for k, v in row.items() if k != "doc_id"} for row in lists("只有原文", 12, clicked="d2")]
    by_id = [{k: v for k, v in row.items() if k != "passage"} for row in lists("只有编号", 12, clicked="d2")]
    source = write(tmp_path / "clicks.jsonl", by_text)
    assert build(source, tmp_path / "text") == 0
    [record] = records(tmp_path / "text" / "reranker_pairs.jsonl")
    assert record["positives"][0]["text"] == DOCS["d2"] and record["positives"][0]["doc_id"].startswith("text-")
    assert prompts(tmp_path / "text")["只有原文"].relevant_doc_ids == (), "the service knows no such id"

    assert build(write(tmp_path / "ids.jsonl", by_id), tmp_path / "ids") == 0
    assert records(tmp_path / "ids" / "reranker_pairs.jsonl") == []
    assert figures(tmp_path / "ids")["pairs_without_text"] == 2
    assert prompts(tmp_path / "ids")["只有编号"].relevant_doc_ids == ("d2",)

    both = write(tmp_path / "both.jsonl", [*by_text, *by_id])
    assert build(both, tmp_path / "both", "--corpus", str(corpus)) == 0
    named = {"doc_id": "d2", "text": DOCS["d2"]}
    assert [r["positives"] for r in records(tmp_path / "both" / "reranker_pairs.jsonl")] == [[named], [named]]
    assert {s.relevant_doc_ids for s in prompts(tmp_path / "both").values()} == {("d2",)}


def as_csv(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8-sig") -> None:
    with path.open("w", encoding=encoding, newline="") as text:
        out = csv.writer(text)
        out.writerow(["用户问题", "文档编号", "知识片段", "是否点击", "排名", "请求编号"])
        for row in rows:
            values = [row[name] for name in ("query", "doc_id", "passage", "clicked", "position", "request_id")]
            out.writerow(["是" if v is True else "否" if v is False else v for v in values])


def as_workbook(path: Path, rows: list[dict[str, Any]]) -> None:
    book = xlsxwriter.Workbook(str(path))
    book.add_worksheet("说明").write(0, 0, "点击日志导出")
    sheet = book.add_worksheet("点击")
    sheet.write(0, 0, "三月点击日志")
    sheet.write_row(2, 0, list(rows[0]))
    for number, row in enumerate(rows, start=3):
        sheet.write_row(number, 0, list(row.values()))
    book.close()


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = lists("鱼油怎么吃", 12, clicked="d2")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    nested = "".join(
        json.dumps({"payload": {"query": row.pop("query")}, "data": row}) + "\n" for row in json.loads(json.dumps(rows))
    )
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.log.zst").write_bytes(pa.compress(lines, "zstd", asbytes=True))
    (tmp_path / "d.log").write_text(nested)
    as_csv(tmp_path / "e.csv", rows)
    as_csv(tmp_path / "f.csv", rows, encoding="gb18030")
    as_workbook(tmp_path / "g.xlsx", rows)
    found = set()
    for path in sorted(tmp_path.glob("*.*")):
        out = tmp_path / "out" / path.name
        assert build(path, out) == 0
        found.add(b"".join((out / name).read_bytes() for name in OUTPUTS))
    assert len(found) == 1


def test_same_input_same_bytes_and_a_finished_build_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for n in range(9) for row in lists(f"第{n}个问题{'好' * n}", 12, clicked="d2")]
    source = write(tmp_path / "clicks.jsonl", rows)
    assert build(source, tmp_path / "a") == 0 and build(source, tmp_path / "b") == 0
    names = (*OUTPUTS, "rl_train.parquet", "rl_val.parquet")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    capsys.readouterr()
    assert build(source, tmp_path / "a") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert build(source, tmp_path / "a", "--min-shown", "13") == 0
    assert records(tmp_path / "a" / "reranker_pairs.jsonl") == []


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "clicks.jsonl", lists("鱼油怎么吃", 12, clicked="d2"))
    assert build(source, tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists() and "not ranked first" in capsys.readouterr().out


def test_an_unreadable_file_is_named_and_the_others_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "clicks"
    folder.mkdir()
    write(folder / "good.jsonl", lists("鱼油怎么吃", 12, clicked="d2"))
    (folder / "bad.xlsx").write_bytes(b"PK no workbook")
    assert build(folder, tmp_path / "out") == 0
    assert "unreadable: " in capsys.readouterr().out
    first = records(tmp_path / "out" / "quarantine.jsonl")[0]
    assert first["file"] == str(folder / "bad.xlsx") and "row" not in first
    assert check_accounts(tmp_path / "out")["in"] == 36


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("none.jsonl", None, (), "no such file"),
        ("empty.csv", b"", (), "empty"),
        ("blank.jsonl", b"\n \n", (), "blank.jsonl"),
        ("lacks.csv", b"query,clicked_at\na,1\n", (), "no column clicked"),
        ("bytes.csv", b"\xff\xff\xff", (), ""),
        ("text.xlsx", b"hello", (), "not a readable workbook"),
        ("all_bad.jsonl", b'{"query": "a"}\n', (), "no row can be used; row 1: clicked: empty"),
        ("good.jsonl", b'{"query": "ab", "clicked": 1, "doc_id": 1}\n', ("--min-shown", "0"), "--min-shown 0: below 1"),
        (
            "good.jsonl",
            b'{"query": "ab", "clicked": 1, "doc_id": 1}\n',
            ("--negative-rate", ".5"),
            "--positive-rate 0.3",
        ),
        ("good.jsonl", b'{"query": "ab", "clicked": 1, "doc_id": 1}\n', ("--corpus", "no.jsonl"), "no.jsonl"),
    ],
)
def test_bad_input_ends_with_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    options: tuple[str, ...],
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert build(tmp_path / name, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()


def test_click_files_of_any_encoding_say_which_was_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"query": "魚油什麼時候吃"} for row in lists("魚油", 4, "d2")]
    packed = [json.dumps({"payload": json.dumps(rows[0], ensure_ascii=False)}, ensure_ascii=False), *rows[1:]]
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in packed)
    (tmp_path / "clicks").mkdir()
    clicks = tmp_path / "clicks" / "a.jsonl"
    clicks.write_bytes("\n".join(lines).encode("gb18030"))
    (tmp_path / "clicks" / "b.out").touch()
    assert build(tmp_path / "clicks", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert f"note: {clicks}: read as GB18030 12 lines" in said
    assert f"note: 1 files passed over (no kind that is read): {clicks.with_name('b.out')}" in said
    assert not [row for row in records(tmp_path / "out" / "quarantine.jsonl") if row.get("row") == 1]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_spellings_of_missing_are_counted_in_click_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    rows = [row | {"user_profile": "NULL", "timestamp": "昨天"} for row in lists("鱼油怎么吃", 4, "d2")]
    rows[0] |= {"doc_id": "\\N", "passage": "#N/A"}
    if kind == "jsonl":
        clicks = write(tmp_path / "clicks.jsonl", rows)
    else:
        clicks = tmp_path / "clicks.csv"
        with clicks.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    assert build(clicks, tmp_path / "out") == 0
    said = capsys.readouterr().out
    first = 3 if kind == "csv" else 2  # the row of which nothing is left is quarantined
    for what in ("user_profile: read as not recorded: 11 (NULL)", "timestamp: not understood: 11 (昨天)"):
        line = f"passed over: {what}, first in row {first} of {clicks}"
        assert line in said and line in figures(tmp_path / "out")["notes"]
    [reason] = [row["reason"] for row in records(tmp_path / "out" / "quarantine.jsonl")]
    assert reason == "passage: no text, no doc_id"


def test_clicks_in_envelopes(tmp_path: Path) -> None:
    rows = lists("鱼油怎么吃", 4, "d2")
    plain = write(tmp_path / "plain.jsonl", rows)
    shapes = [
        {"_source": {"message": json.dumps(row)}} if n % 2 else {"event": json.dumps({"data": [row]})}
        for n, row in enumerate(rows)
    ]
    wrapped = write(tmp_path / "wrapped.jsonl", shapes)
    assert build(plain, tmp_path / "a") == build(wrapped, tmp_path / "b") == 0
    assert figures(tmp_path / "a")["rows"] == figures(tmp_path / "b")["rows"]
    assert (tmp_path / "a" / OUTPUTS[2]).read_bytes() == (tmp_path / "b" / OUTPUTS[2]).read_bytes()
