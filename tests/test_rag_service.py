"""The service over real HTTP: contract, order, threshold, tenants, rewriter, commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from rag.build_index import build_index
from rag.contracts import GeneralRagResponse
from rag.ingest import IngestError
from rag.rewriting import Rewriter
from rag.search import KnowledgeBase
from rag.serve import main
from rag.service import create_app

PRODUCTS = ["鱼油", "钙片", "益生菌", "维生素D", "辅酶Q10", "叶黄素", "蛋白粉", "褪黑素", "氨糖", "葡萄籽"]
TOPICS = {
    "usage": "每日两粒，建议随餐服用，温水送服",
    "pregnancy": "孕妇和哺乳期妇女食用前请先咨询医生",
    "children": "三岁以下儿童不建议食用",
    "storage": "请置于阴凉干燥处，避免阳光直射",
    "price": "一瓶六十粒，单价一百二十八元",
    "effect": "坚持食用三个月后效果更明显",
    "conflict": "不宜与华法林等抗凝药物同时食用",
    "sleep": "睡前半小时食用，有助于改善睡眠",
    "return": "未拆封的产品七天内可以退货",
    "invoice": "下单时填写抬头即可开具电子发票",
    "origin": "原料产自挪威，国内工厂分装",
    "shelf": "保质期二十四个月，开封后尽快吃完",
}
HEALTH = {f"{i}-{topic}": f"{p}：{p}{text}。" for i, p in enumerate(PRODUCTS) for topic, text in TOPICS.items()}
COURSES = {"c1": "考研英语课程含真题精讲。", "c2": "公务员考试复习资料包邮。", "c3": "课程有效期两年。"}

Post = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rag")
    built = {}
    for tenant, kb_name, texts in (
        ("fivedoctors", "default", HEALTH),
        ("chengla", "default", COURSES),
        ("chengla", "faq", {"f1": "课程可以退款。"}),
    ):
        kb_dir, out = folder / f"kb_{tenant}_{kb_name}", folder / f"{tenant}_{kb_name}"
        kb_dir.mkdir()
        rows = [json.dumps({"_id": doc_id, "text": text}) for doc_id, text in texts.items()]
        (kb_dir / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
        build_index(kb_dir, out, tenant, kb_name)
        built[f"{tenant}/{kb_name}"] = out
    return built


@contextmanager
def serving(folders: list[Path], rewriter: Rewriter | None = None) -> Iterator[str]:
    """URL of the service over these indexes, run by uvicorn in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app([KnowledgeBase(folder) for folder in folders], rewriter)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def rewriter_service(answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> Iterator[str]:
    """URL of a rewriter whose `/api/rewrite_query` answers (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer({"path": self.path, **request})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(url: str, **body: Any) -> httpx.Response:
    body = {"query": "鱼油怎么吃", "tenant_id": "fivedoctors", "top_k": 100, "score_threshold": 0} | body
    return httpx.post(f"{url}/api/chat/general_rag", json=body, timeout=30, trust_env=False)


def recall(url: str, **body: Any) -> list[dict[str, Any]]:
    response = post(url, **body)
    assert response.status_code == 200, response.text
    hits: list[dict[str, Any]] = response.json()["data"]["recall"]
    return hits


@pytest.fixture(scope="module")
def url(indexes: dict[str, Path]) -> Iterator[str]:
    with serving(list(indexes.values())) as address:
        yield address


def test_answer_has_the_contract_shape(url: str) -> None:
    response = post(url, top_k=5, user_profile="孕妇", history_summary="问过钙片")
    GeneralRagResponse.model_validate_json(response.content, strict=True)
    data = response.json()["data"]
    assert (data["user_profile"], data["history_summary"]) == ("孕妇", "问过钙片")
    assert (data["rewritten_query"], data["rewrite_source"], data["rewrite_failure"]) == ("鱼油怎么吃", "query", "")
    assert data["reranker"] == "lexical-coverage-v1"
    assert len(data["recall"]) == 5
    for hit in data["recall"]:
        assert hit["content"] == HEALTH[hit["doc_id"]]
        assert 0 < hit["score"] <= 1 and 0 <= hit["reranker_score"] <= 1
    scores = [hit["score"] for hit in data["recall"]]
    assert scores == sorted(scores, reverse=True)


def test_the_smallest_request_is_enough(url: str) -> None:
    response = httpx.post(
        f"{url}/api/chat/general_rag", json={"query": "鱼油怎么服用", "tenant_id": "fivedoctors"}, trust_env=False
    )
    data = response.json()["data"]
    assert (data["user_profile"], data["history_summary"]) == ("", "")
    assert data["recall"][0]["doc_id"] == "0-usage"
    assert all(hit["reranker_score"] >= 0.5 for hit in data["recall"]) and len(data["recall"]) <= 5


def test_the_given_rewrite_decides_the_order_but_not_the_relevance(url: str) -> None:
    original = recall(url, query="鱼油怎么吃")
    rewritten = recall(url, query="鱼油怎么吃", rewritten_query="钙片开发票")
    assert rewritten[0]["doc_id"] == "1-invoice" != original[0]["doc_id"]
    asked_alone = recall(url, query="钙片开发票")
    assert [hit["doc_id"] for hit in rewritten] == [hit["doc_id"] for hit in asked_alone]
    relevance = {hit["doc_id"]: hit["reranker_score"] for hit in original}
    shared = [hit for hit in rewritten if hit["doc_id"] in relevance]
    assert len(shared) > 50
    assert all(hit["reranker_score"] == relevance[hit["doc_id"]] for hit in shared)
    data = post(url, rewritten_query="  钙片开发票 ").json()["data"]
    assert (data["rewritten_query"], data["rewrite_source"]) == ("钙片开发票", "given")
    assert post(url, rewritten_query=" ").json()["data"]["rewrite_source"] == "query"


def test_context_changes_relevance_but_not_the_order(url: str) -> None:
    plain = recall(url, query="鱼油能吃吗")
    pregnant = recall(url, query="鱼油能吃吗", user_profile="孕妇")
    assert [hit["doc_id"] for hit in plain] == [hit["doc_id"] for hit in pregnant]
    scores = [{hit["doc_id"]: hit["reranker_score"] for hit in hits} for hits in (plain, pregnant)]
    assert scores[1]["0-pregnancy"] / scores[1]["0-invoice"] > scores[0]["0-pregnancy"] / scores[0]["0-invoice"]


def test_history_comes_as_lines_or_as_turns(url: str) -> None:
    lines = recall(url, history="用户: 我是孕妇\n助手: 好的")
    turns = [
        {"role": "system", "content": "你是客服"},
        {"role": "user", "content": "我是孕妇"},
        {"role": "assistant", "content": "好的"},
    ]
    assert recall(url, history=turns) == lines
    assert recall(url, history=[]) == recall(url, history=None) == recall(url)
    assert lines != recall(url)


def test_top_k_caps_and_reaches_a_hundred(url: str) -> None:
    everything = recall(url)
    assert len(everything) == 100
    assert len({hit["doc_id"] for hit in everything}) == 100
    assert [hit["doc_id"] for hit in recall(url, top_k=3)] == [hit["doc_id"] for hit in everything[:3]]
    assert len(recall(url, top_k=200)) == len(HEALTH)


def test_threshold_drops_by_reranker_score(url: str) -> None:
    everything = recall(url)
    levels = sorted({hit["reranker_score"] for hit in everything})
    threshold = levels[len(levels) // 2]
    kept = recall(url, score_threshold=threshold)
    assert kept == [hit for hit in everything if hit["reranker_score"] >= threshold]
    assert 0 < len(kept) < 100


def test_same_request_same_answer(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(url, history="用户: 睡不着").content, range(24)))
    assert len(set(answers)) == 1


def test_a_query_without_words_is_answered(url: str) -> None:
    assert all(hit["reranker_score"] == 0 for hit in recall(url, query="？？"))


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"tenant_id": "zlkt"}, 404, "unknown tenant 'zlkt'"),
        ({"kb_name": "faq"}, 404, "unknown knowledge base 'faq' of tenant 'fivedoctors'"),
        ({"query": " "}, 422, "query: String should have at least 1 character"),
        ({"top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"top_k": 201}, 422, "top_k: Input should be less than or equal to 200"),
        ({"history": [{"role": "user"}]}, 422, "history: Value error, each turn needs a role and a content string"),
    ],
)
def test_a_bad_request_gets_one_clear_line(url: str, body: dict[str, Any], status: int, detail: str) -> None:
    response = post(url, **body)
    assert (response.status_code, response.json()) == (status, {"detail": detail})


def test_tenants_and_knowledge_bases_are_apart(url: str) -> None:
    assert {hit["doc_id"] for hit in recall(url, tenant_id="chengla", query="鱼油课程")} == set(COURSES)
    assert {hit["doc_id"] for hit in recall(url, tenant_id="chengla", kb_name="faq")} == {"f1"}
    assert {hit["doc_id"] for hit in recall(url, query="考研英语课程", top_k=200)} == set(HEALTH)


def test_health_reports_what_is_served(url: str) -> None:
    health = httpx.get(f"{url}/healthz", trust_env=False).json()
    assert health["status"] == "ok" and health["rewriter"] is False
    served = {(kb["tenant_id"], kb["kb_name"]): kb["passages"] for kb in health["knowledge_bases"]}
    assert served == {("fivedoctors", "default"): 120, ("chengla", "default"): 3, ("chengla", "faq"): 1}
    first = health["knowledge_bases"][0]
    assert first["embedder_id"].startswith("hash-") and first["reranker"] == "lexical-coverage-v1"
    assert first["versions"]["qdrant-edge-py"] == "0.9.0"


def test_the_rewriter_is_asked_only_without_a_rewrite(indexes: dict[str, Path]) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(request)
        return 200, json.dumps({"rewritten_query": "钙片开发票"}).encode()

    with (
        rewriter_service(answer) as rewriter_url,
        serving([indexes["fivedoctors/default"]], Rewriter(rewriter_url, 10)) as url,
    ):
        assert post(url, rewritten_query="益生菌").json()["data"]["rewrite_source"] == "given"
        assert asked == []
        data = post(url, user_profile="孕妇", history="用户: 在吗").json()["data"]
    assert (data["rewritten_query"], data["rewrite_source"], data["rewrite_failure"]) == ("钙片开发票", "rewriter", "")
    assert data["recall"][0]["doc_id"] == "1-invoice"
    assert asked == [
        {
            "path": "/api/rewrite_query",
            "query": "鱼油怎么吃",
            "history": "用户: 在吗",
            "thought": "",
            "tenant_id": "fivedoctors",
            "user_profile": "孕妇",
            "history_summary": "",
        }
    ]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"{}", "rewriter: HTTP 500"),
        (200, b"<html>", "rewriter: answer is not JSON"),
        (200, b'{"rewritten_query": " "}', "rewriter: answer holds no rewritten_query"),
        (200, b"[]", "rewriter: answer holds no rewritten_query"),
    ],
)
def test_a_useless_rewriter_falls_back_to_the_query(
    indexes: dict[str, Path], status: int, body: bytes, reason: str
) -> None:
    with (
        rewriter_service(lambda _: (status, body)) as rewriter_url,
        serving([indexes["chengla/default"]], Rewriter(rewriter_url, 10)) as url,
    ):
        data = post(url, tenant_id="chengla", query="课程").json()["data"]
    assert (data["rewritten_query"], data["rewrite_source"], data["rewrite_failure"]) == ("课程", "query", reason)
    assert len(data["recall"]) == 3


def test_a_rewriter_that_is_down_or_slow_falls_back(indexes: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        down = f"http://127.0.0.1:{closing.getsockname()[1]}"
    with serving([indexes["chengla/default"]], Rewriter(down, 10)) as url:
        data = post(url, tenant_id="chengla", query="课程").json()["data"]
    assert data["rewrite_source"] == "query" and data["rewrite_failure"].startswith("rewriter: ConnectError")

    answered = threading.Event()

    def too_late(_: dict[str, Any]) -> tuple[int, bytes]:
        answered.wait(30)
        return 200, b'{"rewritten_query": "late"}'

    with (
        rewriter_service(too_late) as rewriter_url,
        serving([indexes["chengla/default"]], Rewriter(rewriter_url, 0.2)) as url,
    ):
        data = post(url, tenant_id="chengla", query="课程").json()["data"]
        answered.set()
    assert (data["rewritten_query"], data["rewrite_source"]) == ("课程", "query")
    assert data["rewrite_failure"] == "rewriter: no answer within 0.2 s"


def test_a_taken_port_is_said_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--index", str(tmp_path / "absent"), "--port", str(port)]) == 2
    line = f"error: 127.0.0.1:{port} is taken by another program (choose another with --port)\n"
    assert capsys.readouterr().err == line


def test_a_missing_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--index", str(tmp_path / "absent"), "--port", "0"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'absent'}: no index there (")


def test_the_same_knowledge_base_twice_is_refused(indexes: dict[str, Path]) -> None:
    folder = indexes["chengla/faq"]
    with pytest.raises(IngestError, match="chengla/faq: given by two indexes"):
        create_app([KnowledgeBase(folder), KnowledgeBase(folder)])


def test_a_running_request_is_finished_before_the_service_stops(indexes: dict[str, Path]) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        asked.set()
        may_answer.wait(30)
        return 200, b'{"rewritten_query": "refund"}'

    with rewriter_service(answer) as rewriter_url, ThreadPoolExecutor(1) as pool:
        options = ["--port", "0", "--rewriter_url", rewriter_url, "--rewriter_timeout", "30"]
        folders = [option for folder in indexes.values() for option in ("--index", str(folder))]
        process = subprocess.Popen(
            [sys.executable, "-m", "rag.serve", *folders, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        assert process.stdout is not None and process.stderr is not None
        started = [process.stdout.readline() for _ in range(4)]
        assert started[0] == "fivedoctors/default: 120 passages\n"
        url = started[3].split()[2]
        running = pool.submit(post, url, tenant_id="chengla", kb_name="faq")
        assert asked.wait(30)
        os.kill(process.pid, signal.SIGTERM)
        may_answer.set()
        assert running.result().json()["data"]["rewritten_query"] == "refund"
        process.wait(30)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        process.stdout.close()
        process.stderr.close()
