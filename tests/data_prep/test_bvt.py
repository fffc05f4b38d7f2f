"""run_bvt against a real HTTP service on loopback that fails in the ways a real one does."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import openpyxl
import pandas as pd
import pytest
import yaml
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from data_prep import run_bvt
from data_prep.baseline.asking import ask_each
from data_prep.bvt.progress import appending, read_progress, record_answer
from data_prep.bvt.row import COLUMNS, NO_HIT, BvtRow
from data_prep.bvt.workbook import CELL_LIMIT, hits_cell, write_workbook
from data_prep.readers.sources import Sources
from reward.records.files import BadInput
from reward.records.sample import Hit
from reward.services.rag_client import RagAnswer
from reward.settings.data import DeidentifySettings, SourceSettings
from tests.support.asgi_server import AsgiServer
from tests.support.commands import start_module


class LoopbackRag:
    """Behaves by the query's words: 坏 → 500, 偶 → 500 once, 慢 → beyond the time-out, 空 → no hit."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.asked: Counter[str] = Counter()
        self.healthy = threading.Event()
        self.answer_at_most: int | None = None  # further calls hang until `healthy`
        self.delay = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        app = FastAPI()
        app.post("/api/chat/general_rag")(self.general_rag)
        self.server = AsgiServer(app, timeout_graceful_shutdown=1)
        self.url = self.server.url

    def general_rag(self, request: dict) -> JSONResponse:  # a sync handler: one thread a call
        with self.lock:
            self.bodies.append(request)
            self.asked[request["query"]] += 1
            hangs = self.answer_at_most is not None and len(self.bodies) > self.answer_at_most
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if hangs:
                self.healthy.wait(300)
            time.sleep(self.delay)
            return self.answer(request["query"])
        finally:
            with self.lock:
                self.at_once -= 1

    def answer(self, query: str) -> JSONResponse:
        if not self.healthy.is_set():
            if "坏" in query or ("偶" in query and self.asked[query] == 1):
                return JSONResponse({"detail": "boom"}, status_code=500)
            if "慢" in query:
                self.healthy.wait(60)
        hits = [{"content": f"文档{i}", "score": 0.03, "reranker_score": 0.9 - i / 10} for i in range(4)]
        data = {
            "user_profile": "35岁女性",
            "history_summary": "",
            "rewritten_query": f"{query} 服用方法",
            "recall": [] if "空" in query else [hit | {"doc_id": f"d{i}"} for i, hit in enumerate(hits)],
        }
        return JSONResponse({"data": data})

    def close(self) -> None:
        self.healthy.set()
        self.server.close()


@pytest.fixture
def rag() -> Iterator[LoopbackRag]:
    service = LoopbackRag()
    yield service
    service.close()


@pytest.fixture
def tenant(tmp_path: Path, rag: LoopbackRag) -> Path:
    path = tmp_path / "tenant.yaml"
    settings = {
        "tenant_id": "fivedoctors",
        "short_id": "fivedr",
        "system_prompt": "你是查询优化专家。",
        "rag": {"url": rag.url, "timeout": 10, "attempts": 2, "backoff": [0.01, 0.02]},
    }
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def write_queries(path: Path, *queries: dict) -> Path:
    path.write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in queries), encoding="utf-8")
    return path


def arguments(queries: Path, tenant: Path, out: Path) -> list[str]:
    return ["--queries", str(queries), "--tenant", str(tenant), "--out", str(out)]


def read_back(path: Path) -> list[dict[str, Any]]:
    """The rows of a workbook as the builders read them."""
    batches = Sources([path], SourceSettings(), ("original_query",)).batches()
    return [row for batch in batches for row in batch.to_pylist()]


def test_every_query_gets_a_row_whatever_the_service_does(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(
        tmp_path / "queries.jsonl",
        {"query": "鱼油怎么吃", "query_id": "q1", "history_context": "用户: 你好\n助手: 您好", "slices": ["新", "难"]},
        {"query": "坏掉的问题", "query_id": "q2"},
        {"query": "偶尔失败", "query_id": "q3"},
        {"query": "慢吞吞", "query_id": "q4", "user_profile": "老人"},
        {"query": "空空如也", "query_id": "q5"},
        {"query": "=1+1", "query_id": "q6"},
    )
    tenant.write_text(tenant.read_text(encoding="utf-8").replace("timeout: 10", "timeout: 2"), encoding="utf-8")
    out = tmp_path / "test_sft.xlsx"
    assert run_bvt.main(arguments(queries, tenant, out)) == 0

    rows = {row["query_id"]: row for row in read_back(out)}
    assert [row["success"] for row in rows.values()] == [True, False, True, False, False, True]
    assert not any(row["refused"] for row in rows.values())
    good = rows["q1"]
    assert (good["original_query"], good["rewritten_query"]) == ("鱼油怎么吃", "鱼油怎么吃 服用方法")
    assert (good["user_profile"], good["history_context"]) == ("35岁女性", "用户: 你好\n助手: 您好")
    assert (good["recall_count"], good["top1_score"], good["slices"]) == (4, 0.9, ["新", "难"])
    assert good["avg_top3_score"] == pytest.approx(0.8)
    assert [hit["doc_id"] for hit in json.loads(good["recall_results"])] == ["d0", "d1", "d2", "d3"]
    assert "HTTP 500" in rows["q2"]["error"] and "Timeout" in rows["q4"]["error"]
    for failed in (rows["q2"], rows["q4"]):  # a failed call has no figures, not even a count of hits
        assert failed["recall_count"] is failed["top1_score"] is failed["avg_top3_score"] is None
        assert failed["rewritten_query"] == failed["recall_results"] == ""
    assert rows["q4"]["user_profile"] == "老人"
    assert rows["q5"]["error"] == NO_HIT and rows["q5"]["rewritten_query"] and rows["q5"]["recall_count"] == 0
    assert rows["q6"]["original_query"] == "=1+1"

    sent = next(body for body in rag.bodies if body["query"] == "鱼油怎么吃")
    assert "rewritten_query" not in sent
    assert (sent["top_k"], sent["score_threshold"], sent["history"]) == (5, 0.0, "用户: 你好\n助手: 您好")


def test_columns_stand_in_the_order_of_the_specification(tmp_path: Path, tenant: Path) -> None:
    out = tmp_path / "test_sft.xlsx"
    queries = tmp_path / "queries.csv"
    queries.write_text("query,query_id\n鱼油怎么吃,007\n", encoding="utf-8")
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    frame = pd.read_excel(out, engine="calamine", dtype={"query_id": str})
    assert list(frame.columns) == [
        *("original_query", "user_profile", "history_summary", "rewritten_query", "recall_results", "recall_count"),
        *("top1_score", "avg_top3_score", "success", "query_id", "history_context", "slices", "error"),
    ]
    assert frame["query_id"][0] == "007"
    assert json.loads(frame["recall_results"][0])[0]["reranker_score"] == 0.9


def test_rows_in_are_rows_asked_and_rows_quarantined(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "queries"
    (folder / "more").mkdir(parents=True)
    write_queries(folder / "a.jsonl", {"query": "鱼油"}, {"query": " "}, {"query": "钙片"})
    (folder / "more" / "b.csv").write_text("编号,用户问题\n1,叶酸\n2,\n3,鱼油\n", encoding="gb18030")
    (folder / "c.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    out = tmp_path / "o.xlsx"
    assert run_bvt.main(arguments(folder, tenant, out)) == 0

    assert "rows in 6 = asked 4 + quarantined 2" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "o.xlsx.manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows_in"], manifest["asked"], manifest["quarantined"]) == (6, 4, 2)
    assert [row["original_query"] for row in read_back(out)] == ["鱼油", "钙片", "叶酸", "鱼油"]
    assert rag.asked == {"鱼油": 1, "钙片": 1, "叶酸": 1}
    lines = (tmp_path / "o.xlsx.quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    unreadable, first, second = map(json.loads, lines)
    assert unreadable["file"] == str(folder / "c.xlsx") and unreadable["reason"]
    assert manifest["unreadable"] == [unreadable]
    assert (first["file"], first["row"]) == (str(folder / "a.jsonl"), 2)
    assert first["reason"].startswith("original_query: ") and first.keys() == {"file", "sheet", "row", "reason"}
    assert (second["file"], second["row"]) == (str(folder / "more" / "b.csv"), 3)


def test_a_dry_run_says_what_would_be_asked_and_leaves_no_trace(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "q.jsonl", {"query": "鱼油"}, {"query": "坏"}, {"query": "鱼油"}, {"query": ""})
    command = arguments(queries, tenant, tmp_path / "o.xlsx")
    before = sorted(tmp_path.iterdir())
    assert run_bvt.main([*command, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "rows in 4 = asked 3 + quarantined 1" in shown
    assert "different questions 2: answered already 0, to ask 2" in shown
    assert sorted(tmp_path.iterdir()) == before and not rag.bodies

    assert run_bvt.main(command) == 0
    rag.healthy.set()
    capsys.readouterr()
    assert run_bvt.main([*command, "--dry-run"]) == 0
    assert "answered already 1, to ask 1" in capsys.readouterr().out
    assert run_bvt.main(command) == 0
    asked = len(rag.bodies)
    capsys.readouterr()
    assert run_bvt.main([*command, "--dry-run"]) == 0
    assert "answered already 2, to ask 0" in capsys.readouterr().out
    assert len(rag.bodies) == asked


def test_second_run_repeats_failed_calls_only_and_third_does_nothing(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "鱼油怎么吃"}, {"query": "坏掉的问题"})
    out = tmp_path / "test_sft.xlsx"
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    rag.healthy.set()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert rag.asked == {"鱼油怎么吃": 1, "坏掉的问题": 3}
    assert [row["success"] for row in read_back(out)] == [True, True]
    capsys.readouterr()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sum(rag.asked.values()) == 4


def start(command: list[str]) -> subprocess.Popen[str]:
    return start_module("data_prep.run_bvt", *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_answers(running: subprocess.Popen[str], progress: Path, answers: int) -> None:
    for _ in range(3000):
        if progress.exists() and progress.read_text(encoding="utf-8").count("\n") == answers:
            return
        assert running.poll() is None, "the run ended too early"
        time.sleep(0.02)
    pytest.fail(f"{answers} answers came, but they are not on disk")


def patient(tenant: Path) -> Path:
    """Calls that hang, hang for good: the run cannot end in order before it is stopped."""
    tenant.write_text(tenant.read_text(encoding="utf-8").replace("timeout: 10", "timeout: 300"), encoding="utf-8")
    return tenant


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_repeats_no_answered_question(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, stop: signal.Signals
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(12)))
    out = tmp_path / "test_sft.xlsx"
    progress = tmp_path / "test_sft.xlsx.progress.jsonl"
    rag.answer_at_most = 5
    running = start([*arguments(queries, patient(tenant), out), "--concurrency", "2"])
    try:
        wait_for_answers(running, progress, 5)
        running.send_signal(stop)
        if stop is not signal.SIGKILL:
            assert running.stderr is not None
            assert any("stopping" in line for line in running.stderr)
            running.send_signal(stop)  # hurry: the calls under way will never be answered
            assert running.wait(30) == 128 + stop
    finally:
        running.kill()
        running.wait()
    assert not out.exists()
    recorded = [
        json.loads(line)["rewritten_query"].removesuffix(" 服用方法") for line in progress.open(encoding="utf-8")
    ]
    assert len(recorded) == 5
    with progress.open("a", encoding="utf-8") as cut_off:
        cut_off.write('{"key": "ab')

    rag.answer_at_most = None
    rag.healthy.set()
    before = rag.asked.copy()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert set(rag.asked - before) == {f"问题{n}" for n in range(12)} - set(recorded)
    rows = read_back(out)
    assert [row["original_query"] for row in rows] == [f"问题{n}" for n in range(12)]
    assert all(row["success"] for row in rows)
    assert not progress.exists()


def test_a_signal_lets_calls_under_way_be_answered(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(6)))
    rag.answer_at_most = 2
    running = start([*arguments(queries, patient(tenant), tmp_path / "o.xlsx"), "--concurrency", "2"])
    try:
        wait_for_answers(running, tmp_path / "o.xlsx.progress.jsonl", 2)
        while len(rag.bodies) < 4:
            time.sleep(0.01)
        running.terminate()
        assert running.stderr is not None
        assert any("stopping" in line for line in running.stderr)
        rag.healthy.set()
        assert running.wait(30) == 143
    finally:
        running.kill()
        running.wait()
    assert len(read_progress(tmp_path / "o.xlsx.progress.jsonl")) == len(rag.bodies) == 4


def test_a_minute_sees_no_more_requests_than_allowed(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(8)))
    running = start([*arguments(queries, tenant, tmp_path / "o.xlsx"), "--requests-per-minute", "3"])
    try:
        wait_for_answers(running, tmp_path / "o.xlsx.progress.jsonl", 3)
        time.sleep(1)  # without the limit, eight calls take milliseconds
        assert len(rag.bodies) == 3
    finally:
        running.kill()
        running.wait()


def test_no_more_calls_at_a_time_than_allowed(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(12)))
    rag.delay = 0.05
    assert run_bvt.main([*arguments(queries, tenant, tmp_path / "o.xlsx"), "--concurrency", "3"]) == 0
    assert rag.most_at_once == 3


def test_answers_are_taken_in_order_and_few_are_under_way() -> None:
    under_way: set[int] = set()
    most, taken = 0, []

    async def ask(question: int) -> int:
        nonlocal most
        under_way.add(question)
        most = max(most, len(under_way))
        for _ in range(question * 7 % 5):  # the later ones are often the quicker ones
            await asyncio.sleep(0)
        under_way.remove(question)
        return question

    asyncio.run(ask_each(range(3000), ask, taken.append, at_once=4))
    assert taken == list(range(3000))
    assert most == 4


def test_a_question_that_cannot_be_asked_ends_all_at_once() -> None:
    asked = []

    async def ask(question: int) -> None:
        asked.append(question)
        if question == 3:
            raise BadInput("the ledger cannot be written")
        await asyncio.sleep(300)  # the first answer never comes

    with pytest.raises(BadInput, match="the ledger"):
        asyncio.run(ask_each(range(100), ask, lambda _: None, at_once=4))
    assert len(asked) <= 5


def test_an_answer_recorded_after_a_cut_off_line_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "o.progress.jsonl"
    path.write_text('{"key": "ab', encoding="utf-8")
    with appending(path) as record:
        recorded = record_answer(
            record, "question", RagAnswer((Hit(content="文档"),), "改写", "", ""), DeidentifySettings()
        )
    assert read_progress(path) == {"question": recorded}


def test_an_answer_that_cannot_be_kept_ends_the_run(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(40)))
    (tmp_path / "o.xlsx.progress.jsonl").symlink_to("/dev/full")
    assert run_bvt.main([*arguments(queries, tenant, tmp_path / "o.xlsx"), "--concurrency", "2"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "o.xlsx").exists()
    assert len(rag.bodies) < 10  # and not one call for each question whose answer would be lost


def test_same_question_twice_is_asked_once_and_both_rows_stay(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(
        tmp_path / "queries.jsonl", {"query": "鱼油", "query_id": "a"}, {"query": "鱼油", "query_id": "b"}
    )
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 0
    assert rag.asked == {"鱼油": 1}
    assert [row["query_id"] for row in read_back(tmp_path / "o.xlsx")] == ["a", "b"]


def test_unreachable_service_is_named_in_one_line(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rag.close()
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "鱼油"})
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: RAG service {rag.url} is not reachable")
    assert not (tmp_path / "o.xlsx").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ('{"frage": "鱼油"}\n', "original_query"), ('{"query": " "}\n', "no query can be asked; row 1")],
)
def test_queries_that_cannot_be_used(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text(content, encoding="utf-8")
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and str(queries) in lines[0] and message in lines[0]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--concurrency", "0", "max_concurrency"),
        ("--requests-per-minute", "0", "requests_per_minute"),
        ("--rag-url", "localhost", "RAG service localhost is not reachable: Request URL is missing an 'http"),
        ("--out", "o.csv", "--out must end in .xlsx"),
        ("--tenant", "sixdoctors", "fivedoctors"),  # the known ones
    ],
)
def test_options_that_cannot_be_used(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "鱼油"})
    command = arguments(queries, tenant, tmp_path / "o.xlsx")
    assert run_bvt.main([*command, option, value]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_service_that_answers_nothing_right_ends_in_an_error_and_a_workbook(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "坏一"}, {"query": "坏二"})
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 2
    assert "every call failed; the first: HTTP 500" in capsys.readouterr().err
    assert [row["success"] for row in read_back(tmp_path / "o.xlsx")] == [False, False]


HOSTILE = [
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-1",
    "@SUM(A1)",
    "{=1}",
    "http://example.com/",
    "'引号",
    "007",
    "a\x00b\x07c\x1f",
    "第一行\r\n第二行\r第三行",
    "_x0041_ 与 _x000D_",
    "<b>&amp;</b> ]]>",
    "<r>XlsxWriter's own markup & no XML</r>",
    "<r></r>",
    "  两边空格  ",
    "钙\x7f\x85\u2028\u200b",
    "😀👨‍👩‍👧",
]


def test_a_workbook_holds_any_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "o.xlsx"
    write_workbook(path, [BvtRow(original_query=text, rewritten_query=text, error=text) for text in HOSTILE])

    for row, text in zip(read_back(path), HOSTILE, strict=True):
        assert row["original_query"] == row["rewritten_query"] == row["error"] == text
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name).decode() for name in package.namelist() if name.endswith(".xml")}
    for part in parts.values():
        ElementTree.fromstring(part)
        # Excel "repairs" a file that holds one of these.
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", part)
    assert not re.search("<f[ >]|<hyperlink", parts["xl/worksheets/sheet1.xml"])
    sheet = openpyxl.load_workbook(path)["bvt"]
    assert {cell.data_type for row in sheet.iter_rows(min_row=2, max_col=1) for cell in row} == {"s"}


def test_what_xml_cannot_hold_is_replaced(tmp_path: Path) -> None:
    write_workbook(tmp_path / "o.xlsx", [BvtRow(original_query="a\ufffe\uffffb")])
    assert read_back(tmp_path / "o.xlsx")[0]["original_query"] == "a\ufffd\ufffdb"


def test_a_workbook_can_be_read_by_a_person(tmp_path: Path) -> None:
    path = tmp_path / "o.xlsx"
    hits = (Hit(content="文档", reranker_score=0.9),)
    good = BvtRow(
        original_query="鱼油怎么吃",
        recall_results=hits,
        recall_count=1,
        top1_score=0.9,
        avg_top3_score=0.9,
        success=True,
    )
    long = BvtRow(original_query="鱼油" * 60, history_context="用户: 你好\n助手: 您好", error="HTTP 500")
    write_workbook(path, [good, long])

    sheet = openpyxl.load_workbook(path)["bvt"]
    assert [cell.value for cell in sheet[1]] == list(COLUMNS)
    assert sheet.freeze_panes == "B2"
    assert sheet.auto_filter.ref == "A1:M3"
    widths = [sheet.column_dimensions[cell.column_letter].width for cell in sheet[1]]
    assert all(len(name) + 1 < width <= 61 for name, width in zip(COLUMNS, widths, strict=True))
    assert sheet["A2"].alignment.wrap_text and sheet["A2"].alignment.vertical == "top"
    assert not sheet["E2"].alignment.wrap_text  # JSON of five passages would fill the screen
    assert sheet.row_dimensions[2].height is None  # one line, the default
    assert 60 <= sheet.row_dimensions[3].height <= 120
    assert [cell.data_type for cell in sheet[2]][5:9] == ["n", "n", "n", "b"]
    assert [cell.value for cell in sheet[3]][4:9] == [None, None, None, None, False]


def test_a_cell_holds_no_more_than_excel_lets_it(tmp_path: Path) -> None:
    path = tmp_path / "o.xlsx"
    hits = tuple(Hit(content="😀文" * 20_000, doc_id=str(n), reranker_score=0.5) for n in range(5))
    write_workbook(path, [BvtRow(original_query="鱼油", history_context="😀" * 20_000, recall_results=hits)])

    sheet = openpyxl.load_workbook(path)["bvt"]
    values = [cell.value for cell in sheet[2] if isinstance(cell.value, str)]
    assert all(len(value.encode("utf-16-le")) // 2 <= CELL_LIMIT for value in values)
    row = read_back(path)[0]
    assert row["history_context"] == "😀" * (CELL_LIMIT // 2)
    cut = json.loads(row["recall_results"])
    assert [hit["doc_id"] for hit in cut] == list("01234") and all(len(hit["content"]) > 2000 for hit in cut)


def test_hits_too_many_for_a_cell_lose_the_last_ones() -> None:
    hits = [Hit(content="", doc_id=f"{n:0100}") for n in range(1000)]
    kept = json.loads(hits_cell(hits))
    assert 100 < len(kept) < 300
    assert [hit["doc_id"] for hit in kept] == [hit.doc_id for hit in hits[: len(kept)]]


def test_the_manual_names_files_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run_bvt.main(["--help"])
    assert exit_.value.code == 0
    manual = capsys.readouterr().out
    for word in (".progress.jsonl", ".quarantine.jsonl", "--requests-per-minute", "examples", "exit codes", "130"):
        assert word in manual


def test_what_of_the_queries_is_not_read_is_named(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(
        tmp_path / "queries.jsonl",
        {"query": "鱼油怎么吃", "user_profile": "NULL", "channel": "app"},
        {"query": "钙片怎么吃", "user_profile": "null", "history": [{"role": "店长", "content": "在"}]},
    )
    assert run_bvt.main([*arguments(queries, tenant, tmp_path / "out.xlsx"), "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"note: {queries}: keys not read: channel" in said
    assert f"passed over: user_profile: read as not recorded: 2 (NULL, null), first in row 1 of {queries}" in said
    assert f"passed over: history_context: turn of an unknown speaker: 1 (店长), first in row 2 of {queries}" in said
