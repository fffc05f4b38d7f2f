"""The faults of one call to retrieval or baseline: what the service does, byte by byte, and what becomes of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reward.records.call import CallTrace, FailureKind, ServiceFailure
from reward.records.sample import Candidates, Context, Metadata, Sample
from reward.services.baseline_client import BaselineClient
from reward.services.rag_client import RagClient
from reward.settings.services import BaselineSettings, RagSettings
from tests.support.scripted_service import (
    ScriptedService,
    Step,
    answer,
    half_close,
    hang_up,
    http,
    reset,
    say,
    status,
    trickle,
)

RECORDED = "鱼油 记录"
NO_SERVER = "http://127.0.0.1:9"
NO_NAME = "http://service.invalid"
SLOW = 0.2  # seconds of patience with a service that takes far longer

Reply = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Case:
    """One fault.

    Args:
        script: the service's steps, the last one repeated.
        expected: the kind of failure, or the value that the client makes of the answer.
        requests: HTTP requests that are sent for it.
        url: asked instead of the script's service; `""`: no service is configured.
        timeout: of one try; nothing but a slow service comes near it.
        rewrite: what the judge is asked about.
        reply: the service answers with this instead of a script.
    """

    name: str
    service: str
    script: tuple[Step, ...]
    expected: Any
    requests: int
    url: str | None = None
    timeout: float = 10.0
    rewrite: str = "鱼油 用法用量"
    reply: Reply | None = None


PATIENCE: dict[str, Any] = {"attempts": 2, "backoff": (0.01, 0.02)}
Asked = tuple[Any, CallTrace]


async def ask_rag(url: str, case: Case) -> Asked:
    """((content, reranker_score), …) of the hits in order, or the failure."""
    client = RagClient(RagSettings.model_validate(PATIENCE | {"url": url, "timeout": case.timeout}), "t")
    value, trace = await client.retrieve("鱼油咋吃", Context(), rewritten_query=case.rewrite)
    await client.aclose()
    if isinstance(value, ServiceFailure):
        return value, trace
    return tuple((hit.content, hit.reranker_score) for hit in value.hits), trace


async def ask_baseline(url: str, case: Case) -> Asked:
    """The rewrite, or the failure."""
    settings = BaselineSettings.model_validate(PATIENCE | {"url": url or None, "timeout": case.timeout})
    client = BaselineClient(settings, "t")
    candidates = Candidates(baseline=RECORDED if case.service == "baseline, recorded" else "")
    sample = Sample(sample_id="1", original_query="鱼油咋吃", metadata=Metadata(tenant_id="t"), candidates=candidates)
    asked = await client.rewrite(sample)
    await client.aclose()
    return asked


def never_at_fault(body: dict[str, Any]) -> Step | None:
    return None


class WorkingService(ScriptedService):
    """Answers each request body with `reply(body)`, or with the step that `fault(body)` has for it."""

    def __init__(self, reply: Reply):
        async def step(writer: Any) -> None:
            body = self.bodies[-1]  # the request being answered: nothing else has run since it was read
            await (self.fault(body) or answer(reply(body)))(writer)

        super().__init__((step,))
        self.fault: Callable[[dict[str, Any]], Step | None] = never_at_fault


def recall(*hits: Any, **data: Any) -> dict[str, Any]:
    return {"data": {"recall": list(hits), **data}}


def hit_with(score: str) -> Step:
    return say(http(f'{{"data": {{"recall": [{{"content": "鱼油", "reranker_score": {score}}}]}}}}'))


F = FailureKind
HIT = {"content": "鱼油", "score": 1.5, "reranker_score": 0.9}
GOOD = json.dumps(recall(HIT), ensure_ascii=False)
FOUND = (("鱼油", 0.9),)
REWRITE = {"rewritten_query": "鱼油 用法"}
FUSED = {"content": "钙片", "score": 0.5}
FELL_BACK = {"rerank": "fell back: HTTP 503"}
QUOTA = json.dumps({"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}})
PASSING = ["408 Request Timeout", "409 Conflict", "425 Too Early", "499 Client Closed Request", "529 Overloaded"]
CUT_SHORT = http(GOOD)[:-10]

SERVICE_CASES = [
    # The service is busy or down: tried again.
    Case("429", "rag", (status("429 Too Many Requests"),), F.RATE_LIMITED, 2),
    Case("429, then an answer", "rag", (status("429 Too Many Requests"), answer(recall(HIT))), FOUND, 2),
    Case(
        "429 with Retry-After, then an answer",
        "rag",
        (status("429 Too Many Requests", retry_after="0.1"), answer(recall(HIT))),
        FOUND,
        2,
    ),
    Case("429, Retry-After unreadable", "rag", (status("429 Too Many", retry_after="soon"),), F.RATE_LIMITED, 2),
    Case("500", "rag", (status("500 Internal Server Error"),), F.SERVER_ERROR, 2),
    Case("502 with an HTML page", "rag", (status("502 Bad Gateway", "<html>"),), F.SERVER_ERROR, 2),
    Case("503", "rag", (status("503 Service Unavailable"),), F.SERVER_ERROR, 2),
    Case("503, then an answer", "rag", (status("503 Service Unavailable"), answer(recall(HIT))), FOUND, 2),
    Case("503 as a page of ten megabytes", "rag", (status("503 Busy", "x" * 10_000_000),), F.SERVER_ERROR, 2),
    # It is slow, or the network fails: tried again.
    Case("slow first byte", "rag", (answer(recall(HIT), after=5),), F.TIMEOUT, 2, timeout=SLOW),
    Case("slow body, a byte at a time", "rag", (trickle(http(GOOD), every=0.05),), F.TIMEOUT, 2, timeout=SLOW),
    Case("slow, then an answer", "rag", (answer(recall(HIT), after=5), answer(recall(HIT))), FOUND, 2, timeout=0.5),
    Case("connection reset", "rag", (reset(),), F.CONNECTION, 2),
    Case("connection reset within the body", "rag", (reset(CUT_SHORT),), F.CONNECTION, 2),
    Case("half-closed within the body", "rag", (half_close(CUT_SHORT),), F.CONNECTION, 2),
    Case("closed without an answer", "rag", (hang_up(),), F.CONNECTION, 2),
    Case("no HTTP", "rag", (hang_up(b"SSH-2.0-OpenSSH_9.6\r\n"),), F.CONNECTION, 2),
    Case("said to be gzip, is not", "rag", (say(http(GOOD, content_encoding="gzip")),), F.CONNECTION, 2),
    Case("nobody listens", "rag", (), F.CONNECTION, 2, url=NO_SERVER),
    Case("DNS failure", "rag", (), F.CONNECTION, 2, url=NO_NAME),
    *(Case(line, "rag", (status(line),), F.SERVER_ERROR, 2) for line in PASSING),
    Case("408, then an answer", "rag", (status("408 Request Timeout"), answer(recall(HIT))), FOUND, 2),
    Case("429 with retry-after-ms", "rag", (status("429 No", retry_after_ms="50"), answer(recall(HIT))), FOUND, 2),
    # The request is refused: told at once.
    Case("account spent (429 insufficient_quota)", "rag", (status("429 No", QUOTA),), F.QUOTA_EXHAUSTED, 1),
    Case("expired key (401)", "rag", (status("401 Unauthorized"),), F.NOT_AUTHORISED, 1),
    Case("forbidden (403)", "rag", (status("403 Forbidden"),), F.NOT_AUTHORISED, 1),
    Case("404", "rag", (status("404 Not Found"),), F.REJECTED, 1),
    Case("422", "rag", (status("422 Unprocessable Entity"),), F.REJECTED, 1),
    Case("redirect (302)", "rag", (status("302 Found", location="/login"),), F.MALFORMED, 1),
    # The answer is no answer: told at once.
    Case("empty body", "rag", (say(http("")),), F.MALFORMED, 1),
    Case("HTML page", "rag", (say(http("<html><body>登录</body></html>")),), F.MALFORMED, 1),
    Case("broken JSON", "rag", (say(http(GOOD[:-3])),), F.MALFORMED, 1),
    Case("two JSON objects", "rag", (say(http(GOOD + GOOD)),), F.MALFORMED, 1),
    Case("a JSON list", "rag", (answer([HIT]),), F.MALFORMED, 1),
    Case("duplicate keys", "rag", (say(http('{"data": {"recall": []}, "data": {"recall": []}}')),), F.MALFORMED, 1),
    Case("nested 100 000 deep", "rag", (say(http("[" * 100_000)),), F.MALFORMED, 1),
    Case("ten megabytes", "rag", (answer(recall(HIT, note="x" * 10_000_000)),), F.MALFORMED, 1),
    Case(
        "ten megabytes, packed",
        "rag",
        (say(http(gzip.compress(b"x" * 10_000_000), content_encoding="gzip")),),
        F.MALFORMED,
        1,
    ),
    Case("GBK instead of UTF-8", "rag", (say(http(GOOD.encode("gbk"))),), F.MALFORMED, 1),
    Case("half a surrogate pair", "rag", (say(http(r'{"data": {"recall": [], "x": "\ud83d"}}')),), F.MALFORMED, 1),
    Case("wrong keys", "rag", (answer({"result": {"hits": []}}),), F.MALFORMED, 1),
    Case("recall is null", "rag", (answer({"data": {"recall": None}}),), F.MALFORMED, 1),
    Case("an error inside a 200", "rag", (answer({"code": 500, "msg": "busy", "data": None}),), F.MALFORMED, 1),
    Case("a hit is a string", "rag", (answer(recall("鱼油")),), F.MALFORMED, 1),
    Case("a hit without content", "rag", (answer(recall({"score": 1.0})),), F.MALFORMED, 1),
    Case("score NaN", "rag", (hit_with("NaN"),), F.MALFORMED, 1),
    Case("score Infinity", "rag", (hit_with("Infinity"),), F.MALFORMED, 1),
    Case("score 1e999", "rag", (hit_with("1e999"),), F.MALFORMED, 1),
    Case("score a string", "rag", (hit_with('"0.9"'),), F.MALFORMED, 1),
    Case("score true", "rag", (hit_with("true"),), F.MALFORMED, 1),
    Case("wrong tenant", "rag", (answer(recall(HIT, tenant_id="other")),), F.MALFORMED, 1),
    Case("reranker_score a logit where a share is declared", "rag", (hit_with("6.2"),), F.MALFORMED, 1),
    Case("reranker_score in percent where a share is declared", "rag", (hit_with("99.5"),), F.MALFORMED, 1),
    # Scores of two kinds: never compared, so asked again.
    Case("one hit reranked, another not", "rag", (answer(recall(HIT, FUSED)),), F.MALFORMED, 2),
    Case("one hit reranked, another not; then all", "rag", (answer(recall(HIT, FUSED)), answer(recall(HIT))), FOUND, 2),
    Case("the reranker fell back", "rag", (answer(recall(HIT, channels=FELL_BACK)),), F.MALFORMED, 2),
    # Unusual, and right.
    Case("reranker_score 1.0000001", "rag", (hit_with("1.0000001"),), (("鱼油", 1.0),), 1),
    Case("a second answer behind the first", "rag", (say(http(GOOD) + http(GOOD)),), FOUND, 1),
    Case("hits without scores", "rag", (answer(recall({"content": "鱼油"})),), (("鱼油", None),), 1),
    Case(
        "hits unsorted: the service's order counts",
        "rag",
        (answer(recall({"content": "乙", "reranker_score": 0.1}, {"content": "甲", "reranker_score": 0.9})),),
        (("乙", 0.1), ("甲", 0.9)),
        1,
    ),
    Case("empty recall", "rag", (answer(recall()),), (), 1),
    Case("fields nobody knows", "rag", (answer(recall(HIT | {"page": 3}, tenant_id="t", took=5)),), FOUND, 1),
    Case("packed with gzip", "rag", (say(http(gzip.compress(GOOD.encode()), content_encoding="gzip")),), FOUND, 1),
    Case("byte order mark", "rag", (say(http(b"\xef\xbb\xbf" + GOOD.encode())),), FOUND, 1),
    # The baseline.
    Case("service down", "baseline, recorded", (status("500 No"),), RECORDED, 0),
    Case("no service configured", "baseline", (), F.NOT_CONFIGURED, 0, url=""),
    Case("500, then a rewrite", "baseline", (status("500 No"), answer(REWRITE)), "鱼油 用法", 2),
    Case("500", "baseline", (status("500 No"),), F.SERVER_ERROR, 2),
    Case("slow first byte", "baseline", (answer(REWRITE, after=5),), F.TIMEOUT, 2, timeout=SLOW),
    Case("connection reset", "baseline", (reset(),), F.CONNECTION, 2),
    Case("expired key (401)", "baseline", (status("401 Unauthorized"),), F.NOT_AUTHORISED, 1),
    Case("HTML page", "baseline", (say(http("<html>")),), F.MALFORMED, 1),
    Case("wrong keys", "baseline", (answer({"rewrite": "鱼油"}),), F.MALFORMED, 1),
    Case("rewrite is blank", "baseline", (answer({"rewritten_query": "  "}),), F.MALFORMED, 1),
    Case("rewrite is null", "baseline", (answer({"rewritten_query": None}),), F.MALFORMED, 1),
    Case("rewrite is a list", "baseline", (answer({"rewritten_query": ["鱼油"]}),), F.MALFORMED, 1),
    Case("half a surrogate pair", "baseline", (say(http(r'{"rewritten_query": "\ud83d"}')),), F.MALFORMED, 1),
]
