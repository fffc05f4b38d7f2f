"""The live services of the benchmark: retrieval over every tenant's passages, and a judge that knows the answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.integrity_runs.suite import TenantSuite
from benchmarks.rag_load_runs.service import serving
from rag.build_index import build_index
from reward.judge.protocol import DELIMITERS

PATIENCE = 600  # seconds for an answer


@contextmanager
def retrieval_service(suites: Sequence[TenantSuite], reranker: str | None) -> Iterator[str]:
    """URL of `rag.serve` over the suites' passages, one tenant each.

    Args:
        reranker: a cross-encoder's folder or endpoint, as `rag.serve --reranker` takes it; None: lexical scores.

    Raises:
        RuntimeError: the service does not start.
    """
    with TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        for suite in suites:
            corpus = Path(folder) / suite.tenant.tenant_id
            corpus.mkdir()
            suite.write_corpus(corpus)
            build_index(corpus, index, suite.tenant.tenant_id)
        # A cross-encoder on a few cores is slow: what it does not score in time would be left out of the comparison.
        settings = Path(folder) / "service.yaml"
        settings.write_text(f"rerank_timeout: {PATIENCE}\n", encoding="utf-8")
        options = ["--settings", str(settings), *(["--reranker", reranker] if reranker else [])]
        with serving(index, *options) as server:
            yield server.url


class HonestJudge:
    """Grades by a key of the suite's authors: what is honest, what drops or invents a fact.

    Args:
        faulty: (query, rewrite) of every rewrite that says what the customer did not.
        honest: (query, rewrite) of the honest ones; all other rewrites, baselines among them, are fair.
    """

    def __init__(self, honest: set[tuple[str, str]], faulty: set[tuple[str, str]]):
        self._honest, self._faulty = honest, faulty

    def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The chat completion of one request, as its JSON schema demands it."""
        user = body["messages"][-1]["content"]
        asked, _ = json.JSONDecoder().raw_decode(user.split(DELIMITERS[0])[1].lstrip())
        verdict = self._verdict(asked["原始查询"], asked["改写"], body["response_format"]["json_schema"]["schema"])
        message = {"role": "assistant", "content": json.dumps(verdict, ensure_ascii=False)}
        usage = {"prompt_tokens": len(user), "completion_tokens": 60, "total_tokens": len(user) + 60}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "key", "object": "chat.completion", "created": 0, "choices": [choice], "usage": usage}

    def _verdict(self, query: str, rewrite: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        is_faulty = (query, rewrite) in self._faulty
        grade = 2 if is_faulty else 5 if (query, rewrite) in self._honest else 3
        values: dict[str, Any] = {}
        for name, field in schema["properties"].items():
            choices = field.get("enum", ())
            if field.get("type") == "boolean":
                values[name] = not is_faulty
            elif "是" in choices:
                values[name] = "否" if is_faulty else "是"
            elif choices:
                values[name] = grade
            else:
                values[name] = "照着答案评"
        return values


@contextmanager
def judge_service(judge: HonestJudge) -> Iterator[str]:
    """URL of the judge's OpenAI-compatible `/v1`, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(judge.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
