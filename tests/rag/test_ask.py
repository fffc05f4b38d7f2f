"""`POST /ask` over real HTTP, with a scripted language model on loopback; rewriters; what falls back says so."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.service.answer_routes import cited
from rag.service.contracts import AskResponse
from rag.settings import ServiceSettings
from tests.support.loopback_llm import Fault, loopback_llm
from tests.support.ports import refusing_url
from tests.support.rag_server import (
    HEALTH,
    add_knowledge_base,
    add_sample_tenants,
    post,
    rewriter_service,
    search,
    serving,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag") / "data"
    add_sample_tenants(folder)
    return folder


def with_model(url: str, **settings: Any) -> ServiceSettings:
    model = {"url": url, "model": "tiny", "timeout": 10}
    return ServiceSettings.model_validate({"language_model": model, "query2doc_timeout": 10, **settings})


def with_rewriter(url: str, timeout: float = 10) -> ServiceSettings:
    return ServiceSettings.model_validate({"default": {"rewriter_url": url, "rewriter_timeout": timeout}})


def ask(url: str, **body: Any) -> httpx.Response:
    return post(url, "/ask", **{"query": "鱼油怎么吃", "tenant_id": "fivedoctors"} | body)


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in response.text.split("\n\n") if block]
    return [(block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks]


def test_an_answer_cites_its_contexts(folder: Path) -> None:
    with (
        loopback_llm(lambda body: "鱼油建议每日两粒[1]，随餐用温水送服【2，1】，其余请看说明书[77]。") as model,
        serving(folder, with_model(model)) as url,
    ):
        response = ask(url, top_k=3)
    AskResponse.model_validate_json(response.content, strict=True)
    answer = response.json()
    assert (answer["query"], answer["rewritten_query"]) == ("鱼油怎么吃", "鱼油怎么吃")
    assert (answer["answer"], answer["answer_failure"]) == (
        "鱼油建议每日两粒[1]，随餐用温水送服【2，1】，其余请看说明书[77]。",
        "",
    )
    assert answer["citations"] == [1, 2]
    assert [passage["n"] for passage in answer["passages"]] == [1, 2, 3]
    assert answer["contexts"] == [passage["content"] for passage in answer["passages"]]
    assert all(passage["content"] == HEALTH[passage["doc_id"]] for passage in answer["passages"])
    assert answer["pseudo_doc"] != "" and answer["channels"]["query2doc"] == "on"


def test_citations_are_numbers_of_contexts_once_each() -> None:
    assert cited("[2][1] [2, 3]【1】 [0] [9] [a] 2022", 3) == [2, 1, 3]
    assert cited("未知", 3) == []


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("随餐[1-3]。", [1, 2, 3]),
        ("随餐［1］，每日两粒［２，３］。", [1, 2, 3]),
        ("随餐[1；2]", [1, 2]),
        ("随餐[^1]，两粒[^3]。", [1, 3]),
        ("随餐【1†来源】，两粒【2:0†source】", [1, 2]),
        ("随餐【1-2†source】", [1, 2]),
        ("随餐[1–2]、[3]", [1, 2, 3]),
        ("随餐[1]至[3]", [1, 3]),
        ("随餐[材料1][材料 3]", [1, 3]),
        ("随餐[ 2 ]", [2]),
        ("随餐〔2、3〕", [2, 3]),
        ("随餐[1~3]", [1, 2, 3]),
        ("[2-99]", [2, 3]),
        ("[3-1]", []),
        ("第[2024]年[1.5]克[a1]", []),
    ],
)
def test_citations_are_read_in_every_spelling(answer: str, numbers: list[int]) -> None:
    assert cited(answer, 3) == numbers


THOUGHT = "用户问鱼油怎么吃，先看材料[3]。\n\n</think>\n\n每日两粒[1]。"


def test_thinking_that_nothing_opens_is_cut_off(folder: Path) -> None:
    with loopback_llm(lambda body: THOUGHT) as model, serving(folder, with_model(model)) as url:
        answer = ask(url).json()
        assert (answer["answer"], answer["citations"], answer["answer_failure"]) == ("每日两粒[1]。", [1], "")
        short = "fell back: tiny: a pseudo-document of 8 characters, less than 30"
        assert (answer["pseudo_doc"], answer["channels"]["query2doc"]) == ("", short)
        events = events_of(ask(url, stream=True))
    assert "".join(data["text"] for name, data in events if name == "token") == "每日两粒[1]。"
    assert events[-1][1] == {"answer": "每日两粒[1]。", "citations": [1], "answer_failure": ""}
    # Where nothing was known of the model, the end of the stream holds the answer alone.
    with loopback_llm(lambda body: THOUGHT) as model, serving(folder, with_model(model)) as url:
        events = events_of(ask(url, stream=True, channels={"query2doc": False}))
    assert events[-1][1] == {"answer": "每日两粒[1]。", "citations": [1], "answer_failure": ""}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ended", ["length", "content_filter", "abort"])
def test_an_answer_that_breaks_off_says_so(folder: Path, stream: bool, ended: str) -> None:
    fault = Fault(text="每日两粒[1]，随餐服", ended=ended)
    with loopback_llm(lambda body: fault) as model, serving(folder, with_model(model)) as url:
        response = ask(url, stream=stream, channels={"query2doc": False})
        answer = events_of(response)[-1][1] if stream else response.json()
    assert (answer["answer"], answer["citations"]) == ("每日两粒[1]，随餐服", [1])
    assert answer["answer_failure"] == f"tiny: breaks off ({ended})"


def test_a_stream_that_ends_early_says_so(folder: Path) -> None:
    with (
        loopback_llm(lambda body: Fault(text="每日两粒[1]，随", ended=None)) as model,
        serving(folder, with_model(model)) as url,
    ):
        done = events_of(ask(url, stream=True, channels={"query2doc": False}))[-1][1]
    assert done == {
        "answer": "每日两粒[1]，随",
        "citations": [1],
        "answer_failure": "tiny: breaks off (the stream ended early)",
    }


def test_the_model_sees_the_users_own_query_and_the_context(folder: Path) -> None:
    with loopback_llm(lambda body: "好") as model, serving(folder, with_model(model)) as url:
        ask(url, history=[{"role": "user", "content": "我是孕妇"}], channels={"query2doc": False})
        (asked,) = model.requests
    prompt = json.dumps(asked["messages"], ensure_ascii=False)
    assert "鱼油怎么吃" in prompt and "我是孕妇" in prompt and HEALTH["0-usage"] in prompt


def test_material_without_an_answer_is_unknown(folder: Path) -> None:
    with loopback_llm(lambda body: "未知。") as model, serving(folder, with_model(model)) as url:
        answer = ask(url).json()
    assert (answer["answer"], answer["citations"], answer["answer_failure"]) == ("未知", [], "")


def test_nothing_found_is_unknown_and_no_model_is_asked(folder: Path) -> None:
    with loopback_llm() as model, serving(folder, with_model(model)) as url:
        created = post(url, "/api/tenants/zlkt/knowledge_bases", name="default")
        assert created.status_code == 201
        answer = ask(url, tenant_id="zlkt", channels={"query2doc": False}).json()
        assert httpx.delete(f"{url}/api/tenants/zlkt/knowledge_bases/default", trust_env=False).status_code == 204
        assert model.requests == []
    assert (answer["answer"], answer["contexts"], answer["answer_failure"]) == ("未知", [], "")


def test_without_a_language_model_it_says_so(folder: Path) -> None:
    with serving(folder) as url:
        answer = ask(url).json()
        streamed = events_of(ask(url, stream=True))
    assert (answer["answer"], answer["answer_failure"]) == ("", "no language model is configured")
    assert len(answer["contexts"]) == 5
    assert [name for name, _ in streamed] == ["contexts", "done"]
    assert streamed[1][1] == {"answer": "", "citations": [], "answer_failure": "no language model is configured"}


def test_the_query_alone_is_enough_where_there_is_one_tenant(folder: Path, tmp_path: Path) -> None:
    add_knowledge_base(tmp_path, "only", {"a": "鱼油每日两粒。"})
    with serving(tmp_path) as url:
        assert [found["doc_id"] for found in post(url, "/ask", query="鱼油").json()["passages"]] == ["a"]
        # As `curl -X POST … -d '{"query": …}'` sends it, and with no header at all.
        for headers in ({"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/plain"}, {}):
            body = json.dumps({"query": "鱼油"}).encode()
            answer = httpx.post(f"{url}/ask", content=body, headers=headers, trust_env=False)
            assert answer.status_code == 200 and answer.json()["contexts"] == ["鱼油每日两粒。"], headers
            # A page of another site cannot do that in its visitor's name.
            foreign = headers | {"Origin": "https://elsewhere.example"}
            assert httpx.post(f"{url}/ask", content=body, headers=foreign, trust_env=False).status_code == 403
        assert httpx.post(f"{url}/ask", content=b"query=x", trust_env=False).status_code == 422
    with serving(folder) as url:
        assert post(url, "/ask", query="鱼油").status_code == 422, "whose?"


def test_a_failing_model_is_no_unknown(folder: Path) -> None:
    with loopback_llm(lambda body: Fault(status=500)) as model, serving(folder, with_model(model)) as url:
        answer = ask(url).json()
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    assert (answer["answer"], answer["answer_failure"]) == ("", "tiny: HTTP 500")
    assert answer["channels"]["query2doc"] == "fell back: tiny: HTTP 500" and answer["pseudo_doc"] == ""
    assert 'rag_channel_total{channel="query2doc",state="fell back"} 1.0' in metrics


def test_a_slow_pseudo_document_is_given_up(folder: Path) -> None:
    with (
        loopback_llm(lambda body: Fault(delay=2, text="晚了")) as model,
        serving(folder, with_model(model, query2doc_timeout=0.05)) as url,
    ):
        data = search(url, debug=True).json()["data"]
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    assert data["channels"]["query2doc"] == "fell back: tiny: no answer within 0.05 s"
    assert data["pseudo_document"] == "" and len(data["recall"]) == 100
    assert 'rag_channel_total{channel="query2doc",state="timeout"} 1.0' in metrics


def test_a_stream_gives_contexts_then_tokens_then_the_whole(folder: Path) -> None:
    with loopback_llm(lambda body: "每日两粒，随餐服用[1]。") as model, serving(folder, with_model(model)) as url:
        whole = ask(url).json()
        events = events_of(ask(url, stream=True))
    names = [name for name, _ in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("contexts", "done", {"token"}) and len(names) > 3
    assert "".join(data["text"] for name, data in events if name == "token") == "每日两粒，随餐服用[1]。"
    assert events[-1][1] == {"answer": "每日两粒，随餐服用[1]。", "citations": [1], "answer_failure": ""}
    assert {**events[0][1], **events[-1][1]} == whole


def test_a_stream_that_breaks_off_says_so(folder: Path) -> None:
    with (
        loopback_llm(lambda body: Fault(text="每日两粒，随餐服用[1]。", cut=True)) as model,
        serving(folder, with_model(model)) as url,
    ):
        events = events_of(ask(url, stream=True, channels={"query2doc": False}))
    done = events[-1][1]
    assert events[-1][0] == "done" and done["answer_failure"].startswith("tiny: ")
    assert "每日两粒，随餐服用[1]。".startswith(done["answer"])


def test_the_rewriter_is_asked_only_without_a_rewrite(folder: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(request)
        return 200, json.dumps({"rewritten_query": "钙片开发票"}).encode()

    with rewriter_service(answer) as rewriter, serving(folder, with_rewriter(rewriter)) as url:
        assert search(url, rewritten_query="益生菌").json()["data"]["rewrite_source"] == "given"
        assert search(url, channels={"rewrite": False}).json()["data"]["rewrite_source"] == "query"
        assert asked == []
        data = search(url, user_profile="孕妇", history="用户: 在吗").json()["data"]
    assert (data["rewritten_query"], data["rewrite_source"], data["rewrite_failure"]) == ("钙片开发票", "rewriter", "")
    assert data["recall"][0]["doc_id"] == "1-invoice" and data["channels"]["rewrite"] == "on"
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


def test_a_tenant_has_its_own_rewriter_and_switches(folder: Path) -> None:
    def answer(request: dict[str, Any]) -> tuple[int, bytes]:
        return 200, json.dumps({"rewritten_query": f"{request['tenant_id']} 退款"}).encode()

    with rewriter_service(answer) as rewriter:
        tenant = {"rewriter_url": rewriter, "rewriter_timeout": 10, "channels": {"keyword": False}}
        settings = ServiceSettings.model_validate({"tenants": {"chengla": tenant}})
        with serving(folder, settings) as url:
            own = search(url, tenant_id="chengla").json()["data"]
            turned = search(url, tenant_id="chengla", channels={"keyword": True}).json()["data"]
            other = search(url).json()["data"]
    assert own["rewritten_query"] == "chengla 退款" and own["channels"]["keyword"] == "off"
    assert turned["channels"]["keyword"] == "on"
    assert (other["rewritten_query"], other["channels"]["keyword"]) == ("鱼油怎么吃", "on")
    assert other["channels"]["rewrite"] == "unavailable: no rewriter is configured"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"{}", "rewriter: HTTP 500"),
        (200, b"<html>", "rewriter: answer is not JSON"),
        (200, b'{"rewritten_query": " "}', "rewriter: answer holds no rewritten_query"),
        (200, b"[]", "rewriter: answer holds no rewritten_query"),
    ],
)
def test_a_useless_rewriter_falls_back_to_the_query(folder: Path, status: int, body: bytes, reason: str) -> None:
    with rewriter_service(lambda _: (status, body)) as rewriter, serving(folder, with_rewriter(rewriter)) as url:
        data = search(url, tenant_id="chengla", query="课程").json()["data"]
    assert (data["rewritten_query"], data["rewrite_source"], data["rewrite_failure"]) == ("课程", "query", reason)
    assert data["channels"]["rewrite"] == f"fell back: {reason}"
    assert len(data["recall"]) == 3


def test_a_rewriter_that_is_down_or_slow_falls_back(folder: Path) -> None:
    with refusing_url() as down, serving(folder, with_rewriter(down)) as url:
        data = search(url, tenant_id="chengla", query="课程").json()["data"]
    assert data["rewrite_source"] == "query" and data["rewrite_failure"].startswith("rewriter: ConnectError")

    answered = threading.Event()

    def too_late(_: dict[str, Any]) -> tuple[int, bytes]:
        answered.wait(30)
        return 200, b'{"rewritten_query": "late"}'

    with rewriter_service(too_late) as rewriter, serving(folder, with_rewriter(rewriter, 0.2)) as url:
        data = search(url, tenant_id="chengla", query="课程").json()["data"]
        answered.set()
    assert (data["rewritten_query"], data["rewrite_source"]) == ("课程", "query")
    assert data["rewrite_failure"] == "rewriter: no answer within 0.2 s"
