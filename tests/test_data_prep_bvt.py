"""run_bvt against a real HTTP service on loopback that fails in the ways a real one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from data_prep import run_bvt
from data_prep.bvt_progress import appending, read_progress, record_answer
from data_prep.bvt_row import COLUMNS
from data_prep.read_sources import read_rows
from reward.rag_client import RagAnswer
from reward.records import Hit

ROOT = Path(__file__).resolve().parent.parent


class LoopbackRag:
    """Behaves by the query's words: 坏 → 500, 偶 → 500 once, 慢 → beyond the time-out, 空 → no hit."""

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.asked: Counter[str] = Counter()
        self.healthy = threading.Event()
        self.answer_at_most: int | None = None  # further calls hang until `healthy`
        app = FastAPI()
        app.post("/api/chat/general_rag")(self.general_rag)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def general_rag(self, request: dict) -> JSONResponse:  # a sync handler: one thread a call
        query = request["query"]
        self.bodies.append(request)
        self.asked[query] += 1
        if self.answer_at_most is not None and len(self.bodies) > self.answer_at_most:
            self.healthy.wait(300)
        if not self.healthy.is_set():
            if "坏" in query or ("偶" in query and self.asked[query] == 1):
                return JSONResponse({"detail": "boom"}, status_code=500)
            if "慢" in query:
                self.healthy.wait(3)
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
        self.server.should_exit = True
        self.thread.join(10)


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
        "rag": {"url": rag.url, "timeout": 0.5, "attempts": 2, "backoff": [0.01, 0.02]},
    }
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def write_queries(path: Path, *queries: dict) -> Path:
    path.write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in queries), encoding="utf-8")
    return path


def arguments(queries: Path, tenant: Path, out: Path) -> list[str]:
    return ["--queries", str(queries), "--tenant", str(tenant), "--out", str(out)]


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
    out = tmp_path / "test_sft.xlsx"
    assert run_bvt.main(arguments(queries, tenant, out)) == 0

    rows = {row.query_id: row for row in read_rows(out, COLUMNS).rows}
    assert [row.success for row in rows.values()] == [True, False, True, False, False, True]
    good = rows["q1"]
    assert (good.original_query, good.rewritten_query) == ("鱼油怎么吃", "鱼油怎么吃 服用方法")
    assert (good.user_profile, good.history_context) == ("35岁女性", "用户: 你好\n助手: 您好")
    assert (good.recall_count, good.top1_score, good.slices) == (4, 0.9, ("新", "难"))
    assert good.avg_top3_score == pytest.approx(0.8)
    assert [hit.doc_id for hit in good.recall_results] == ["d0", "d1", "d2", "d3"]
    assert "HTTP 500" in rows["q2"].error and "Timeout" in rows["q4"].error
    assert rows["q4"].user_profile == "老人"
    assert rows["q5"].error == run_bvt.NO_HIT and rows["q5"].rewritten_query
    assert rows["q6"].original_query == "=1+1"

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


def test_second_run_repeats_failed_calls_only_and_third_does_nothing(
    tmp_path: Path, rag: LoopbackRag, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "鱼油怎么吃"}, {"query": "坏掉的问题"})
    out = tmp_path / "test_sft.xlsx"
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    rag.healthy.set()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert rag.asked == {"鱼油怎么吃": 1, "坏掉的问题": 3}
    assert all(row.success for row in read_rows(out, COLUMNS).rows)
    capsys.readouterr()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert sum(rag.asked.values()) == 4


def test_a_killed_run_repeats_no_answered_question(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", *({"query": f"问题{n}"} for n in range(12)))
    out = tmp_path / "test_sft.xlsx"
    progress = tmp_path / "test_sft.xlsx.progress.jsonl"
    rag.answer_at_most = 5
    # The sixth call hangs for good: the run cannot end, and close its file in order, before the kill.
    tenant.write_text(tenant.read_text(encoding="utf-8").replace("timeout: 0.5", "timeout: 300"), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "data_prep.run_bvt", *arguments(queries, tenant, out), "--concurrency", "2"]
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            if progress.exists() and progress.read_text().count("\n") == 5:
                break
            assert running.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        else:
            pytest.fail("five answers came, but they are not on disk")
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert not out.exists()
    recorded = [json.loads(line)["rewritten_query"].removesuffix(" 服用方法") for line in progress.open()]
    assert len(recorded) == 5
    with progress.open("a") as cut_off:
        cut_off.write('{"key": "ab')

    rag.answer_at_most = None
    rag.healthy.set()
    before = rag.asked.copy()
    assert run_bvt.main(arguments(queries, tenant, out)) == 0
    assert set(rag.asked - before) == {f"问题{n}" for n in range(12)} - set(recorded)
    rows = read_rows(out, COLUMNS).rows
    assert [row.original_query for row in rows] == [f"问题{n}" for n in range(12)] and all(row.success for row in rows)
    assert not progress.exists()


def test_an_answer_recorded_after_a_cut_off_line_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "o.progress.jsonl"
    path.write_text('{"key": "ab', encoding="utf-8")
    with appending(path) as record:
        recorded = record_answer(record, "question", RagAnswer((Hit(content="文档"),), "改写", "", ""))
    assert read_progress(path) == {"question": recorded}


def test_same_question_twice_is_asked_once_and_both_rows_stay(tmp_path: Path, rag: LoopbackRag, tenant: Path) -> None:
    queries = write_queries(
        tmp_path / "queries.jsonl", {"query": "鱼油", "query_id": "a"}, {"query": "鱼油", "query_id": "b"}
    )
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 0
    assert rag.asked == {"鱼油": 1}
    assert [row.query_id for row in read_rows(tmp_path / "o.xlsx", COLUMNS).rows] == ["a", "b"]


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
    [("", "the file is empty"), ('{"frage": "鱼油"}\n', "no column original_query"), ('{"query": " "}\n', None)],
)
def test_queries_that_cannot_be_used(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str], content: str, message: str | None
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text(content, encoding="utf-8")
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 2
    error = capsys.readouterr().err
    assert str(queries) in error and (message or "no query can be asked") in error


def test_wrong_tenant_lists_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "鱼油"})
    code = run_bvt.main(["--queries", str(queries), "--tenant", "sixdoctors", "--out", str(tmp_path / "o.xlsx")])
    assert code == 2 and "fivedoctors" in capsys.readouterr().err


def test_a_service_that_answers_nothing_right_ends_in_an_error_and_a_workbook(
    tmp_path: Path, tenant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = write_queries(tmp_path / "queries.jsonl", {"query": "坏一"}, {"query": "坏二"})
    assert run_bvt.main(arguments(queries, tenant, tmp_path / "o.xlsx")) == 2
    assert "every call failed; the first: HTTP 500" in capsys.readouterr().err
    assert [row.success for row in read_rows(tmp_path / "o.xlsx", COLUMNS).rows] == [False, False]
