"""The drop-in over real servers on loopback: contract, time limit, bounds, experiments, shadow, log, swap, kills."""

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from benchmarks.rewriter_service_runs.loopback_model import launch, make_model
from evaluation.systems import model_hash
from export.serving.app import create_app
from export.serving.fingerprint import fingerprint_file
from export.serving.settings import ServingSettings
from reward.records.files import write_json
from reward.records.sample import Sample
from reward.services.baseline_client import BaselineClient
from reward.settings.recipe import load_tenant
from reward.settings.services import BaselineSettings
from tests.support.asgi_server import AsgiServer
from tests.support.loopback_llm import Fault, loopback_llm
from tests.support.ports import refusing_url

ROUTE = "/api/rewrite_query"
QUERY = {"query": "全家都能吃纳豆吗", "history": "", "thought": "", "tenant_id": "fivedoctors"}
QUERY |= {"user_profile": "36岁男性", "history_summary": "用户在咨询纳豆"}


@contextmanager
def drop_in(tmp_path: Path, *, log: str = "log", max_in_flight: int = 256, api_key: str = "", **served):
    """Serve `fivedoctors` and yield a client; the log is complete when the block ends."""
    settings = ServingSettings.model_validate(
        {
            "tenants": {"fivedoctors": {"answer": "8b", **served}},
            "log": str(tmp_path / log),
            "max_in_flight": max_in_flight,
        }
    )
    app = create_app(settings, launch=launch, api_key=api_key)
    with AsgiServer(app) as server, httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        yield client


def chat(url: str) -> dict:
    return {"chat_url": str(url), "max_new_tokens": 24}


def lines_of(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for file in folder.glob("outcomes_*.jsonl") for line in file.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def until(true, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return value


def metric(client: httpx.Client, name: str) -> float:
    [line] = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


# The contract and the prompt


def test_answers_as_the_deployed_service_does(tmp_path):
    with loopback_llm(lambda body: " 纳豆 适宜人群\n") as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        answer = client.post(ROUTE, json=QUERY)
        assert answer.json() == {"rewritten_query": "纳豆 适宜人群"}
        assert answer.headers["x-rewrite-source"] == "8b" and "x-rewrite-failure" not in answer.headers

        # The repository's own client of the 32B takes it for one.
        async def ask():
            sample = Sample(sample_id="t", original_query="这个怎么吃", metadata={"tenant_id": "fivedoctors"})
            baseline = BaselineClient(BaselineSettings(url=str(client.base_url)), "fivedoctors")
            try:
                return await baseline.rewrite(sample)
            finally:
                await baseline.aclose()

        rewrite, trace = asyncio.run(ask())
        assert rewrite == "纳豆 适宜人群" and trace.attempts == 1
    [asked, _] = url.requests
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked["temperature"] == 0 and asked["max_tokens"] == 24
    assert asked["messages"][1]["content"] == (
        "原始查询: 全家都能吃纳豆吗\n\n用户画像: 36岁男性\n\n历史摘要: 用户在咨询纳豆\n\n"
        "请改写上面的查询，便于知识库检索。"
    )


def test_the_prompt_is_masked_as_training_data_is_and_the_fallback_is_not(tmp_path):
    query = "我的电话是13812345678，纳豆怎么吃"
    with loopback_llm(lambda body: Fault(status=500)) as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        answer = client.post(ROUTE, json={**QUERY, "query": query})
        assert answer.json() == {"rewritten_query": query}
    assert "原始查询: 我的电话是[电话]，纳豆怎么吃\n" in url.requests[0]["messages"][1]["content"]
    [line] = lines_of(tmp_path / "log", "answer")
    assert "13812345678" not in json.dumps(line) and "[电话]" in line["query"]


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault(delay=5), "timeout"),
        (Fault(status=500), "server_error"),
        (Fault(status=400), "rejected"),
        (Fault(text="  "), "empty"),
        (Fault(text="<think>想了很久"), "empty"),
        (Fault(text="\u200b\u200d\ufeff"), "empty"),
        (Fault(text="\x00\x07"), "empty"),
        (Fault(text="\u202e \u2066"), "empty"),
        (Fault(body="<html>"), "malformed"),
        (Fault(empty_choices=True), "malformed"),
        (Fault(body=json.dumps({"choices": [{"message": {"content": ["鱼油"]}}]})), "malformed"),
    ],
)
def test_what_is_no_rewrite_is_answered_with_the_original_query_and_the_reason(tmp_path, fault, failure):
    served = {"rewriters": {"8b": {"chat_url": "", "max_new_tokens": 24}}, "timeout": 2}
    with loopback_llm(lambda body: fault) as url:
        served["rewriters"]["8b"]["chat_url"] = str(url)
        with drop_in(tmp_path, **served) as client:
            answer = client.post(ROUTE, json=QUERY)
            assert (answer.status_code, answer.json()) == (200, {"rewritten_query": QUERY["query"]})
            assert answer.headers["x-rewrite-source"] == "original"
            assert answer.headers["x-rewrite-failure"] == failure
            counted = f'rewriter_answers_total{{arm="8b",failure="{failure}",tenant="fivedoctors"}}'
            assert metric(client, counted) == 1
    [line] = lines_of(tmp_path / "log", "answer")
    assert (line["source"], line["failure"]) == ("original", failure)


def test_a_model_that_refuses_connections_is_a_failure_at_once(tmp_path):
    with refusing_url() as url, drop_in(tmp_path, rewriters={"8b": chat(f"{url}/v1")}, timeout=30) as client:
        answer = client.post(ROUTE, json=QUERY)
    assert answer.headers["x-rewrite-failure"] == "connection"


def test_thinking_is_no_part_of_the_rewrite_and_a_cut_one_is_counted(tmp_path):
    text = Fault(text="<think>\n\n</think>\n\n纳豆 适宜人群", ended="length")
    with loopback_llm(lambda body: text) as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        assert client.post(ROUTE, json=QUERY).json() == {"rewritten_query": "纳豆 适宜人群"}
        assert metric(client, 'rewriter_cut_total{arm="8b",tenant="fivedoctors"}') == 1
    assert lines_of(tmp_path / "log", "answer")[0]["cut"] is True


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        ("{", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        ("[]", 422, "expected an object"),
        (json.dumps({**QUERY, "query": " "}), 422, "query"),
        (json.dumps({**QUERY, "query": "长" * 2001}), 422, "query"),
        (json.dumps({**QUERY, "query": 7}), 422, "query"),
        (json.dumps({**QUERY, "query": "\ud800"}), 422, "query"),
        (json.dumps({**QUERY, "history": ["a"]}), 422, "history"),
        (json.dumps({**QUERY, "tenant_id": "zlkt"}), 422, "tenant_id"),
        (json.dumps({**QUERY, "history": "x" * 300_000}), 413, "longer"),
    ],
)
def test_input_out_of_bounds_is_refused_in_one_line(tmp_path, content, status, told):
    with loopback_llm() as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        answer = client.post(ROUTE, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status and told in answer.json()["detail"]
    assert not url.requests


def test_missing_and_null_fields_are_empty_ones(tmp_path):
    with loopback_llm() as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        for body in ({"query": "保质期"}, {"query": "保质期", "history": None, "user_profile": None, "other": 1}):
            assert client.post(ROUTE, json=body).status_code == 200


def test_with_a_key_nobody_calls_without_it(tmp_path):
    with loopback_llm() as url, drop_in(tmp_path, rewriters={"8b": chat(url)}, api_key="geheim") as client:
        for headers in ({}, {"Authorization": "Bearer nein"}, {"Authorization": "Bearer ключ".encode()}):
            assert client.post(ROUTE, json=QUERY, headers=headers).status_code == 401
        for path in ("/api/outcome", "/api/chat/general_rag"):
            assert client.post(path, json=QUERY).status_code == 401
        assert client.post(ROUTE, json=QUERY, headers={"Authorization": "Bearer geheim"}).status_code == 200


def test_another_sites_page_and_another_host_are_refused(tmp_path):
    with loopback_llm() as url, drop_in(tmp_path, rewriters={"8b": chat(url)}) as client:
        assert client.post(ROUTE, json=QUERY, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        assert client.post(ROUTE, json=QUERY, headers={"Host": "evil.example"}).status_code == 400


def test_above_the_limit_of_requests_the_original_query_is_the_answer_at_once(tmp_path):
    with (
        loopback_llm(lambda body: Fault(delay=0.5, text="改写")) as url,
        drop_in(tmp_path, rewriters={"8b": chat(url)}, max_in_flight=2, timeout=5) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = list(pool.map(lambda _: client.post(ROUTE, json=QUERY), range(8)))
    reasons = [answer.headers.get("x-rewrite-failure") for answer in answers]
    assert set(reasons) == {None, "overloaded"} and url.most_under_way <= 2
    assert all(answer.status_code == 200 for answer in answers)


# Experiments, shadow, events


def test_users_keep_their_arm_and_the_log_says_who_answered(tmp_path):
    with (
        loopback_llm(lambda body: "小模型", rewrite=lambda body: {"rewritten_query": "大模型"}) as url,
        drop_in(
            tmp_path,
            rewriters={"8b": chat(url), "32b": {"url": url.removesuffix("/v1")}},
            experiment={"name": "spring", "arm": "32b", "share": 0.3},
        ) as client,
    ):
        users = [f"user{number}" for number in range(60)]
        arms = [[client.post(ROUTE, json={**QUERY, "user_id": user}).headers["x-rewrite-arm"] for user in users]]
        arms += [[client.post(ROUTE, json={**QUERY, "user_id": user}).headers["x-rewrite-arm"] for user in users]]
        assert arms[0] == arms[1] and 5 <= arms[0].count("32b") <= 30
        for user, arm in zip(users, arms[0], strict=True):
            rewrite = client.post(ROUTE, json={**QUERY, "user_id": user}).json()["rewritten_query"]
            assert rewrite == {"8b": "小模型", "32b": "大模型"}[arm]
        assert client.post("/api/outcome", json={"event": "conversion", "user_id": "user0"}).status_code == 204
        assert client.post("/api/outcome", json={"event": "conversion"}).status_code == 422
        assert client.post("/api/outcome", json={"event": "x", "user_id": "user0"}).status_code == 422
    lines = lines_of(tmp_path / "log", "answer")
    assert len(lines) == 180 and {line["experiment"] for line in lines} == {"spring"}
    assert all(line["keyed"] and "user" not in line["unit"] for line in lines)
    assert len({line["unit"] for line in lines}) == 60
    [event] = lines_of(tmp_path / "log", "event")
    assert event["unit"] == lines[0]["unit"]
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "log").iterdir()} == {"0o600"}


def test_the_shadow_is_asked_counted_and_never_waited_for(tmp_path):
    with loopback_llm(lambda body: Fault(delay=1.0, text="影子")) as slow, loopback_llm(lambda body: "答") as fast:
        served = {"rewriters": {"8b": chat(fast), "new": chat(slow)}, "timeout": 5.0}
        with drop_in(tmp_path, **served, shadow={"rewriter": "new", "max_concurrency": 3}) as client:
            answers = [client.post(ROUTE, json=QUERY).json()["rewritten_query"] for _ in range(5)]
            # All answers are there while the first mirrored call is still under way.
            assert answers == ["答"] * 5
            counted = 'rewriter_shadow_total{outcome="%s",rewriter="new",tenant="fivedoctors"}'
            until(lambda: counted % "answered" in client.get("/metrics").text)
            until(lambda: metric(client, counted % "answered") == 3)
            assert metric(client, counted % "dropped") == 2
    lines = lines_of(tmp_path / "log", "shadow")
    assert [(line["rewritten_query"], line["same"]) for line in lines] == [("影子", False)] * 3
    answered = {line["request_id"] for line in lines_of(tmp_path / "log", "answer")}
    assert {line["request_id"] for line in lines} <= answered


def test_a_dead_shadow_changes_no_answer(tmp_path):
    with loopback_llm(lambda body: "答") as url, refusing_url() as dead:
        served = {"rewriters": {"8b": chat(url), "new": chat(f"{dead}/v1")}}
        with drop_in(tmp_path, **served, shadow={"rewriter": "new"}) as client:
            assert client.post(ROUTE, json=QUERY).json() == {"rewritten_query": "答"}
            counted = 'rewriter_shadow_total{outcome="connection",rewriter="new",tenant="fivedoctors"}'
            until(lambda: counted in client.get("/metrics").text)


def test_texts_can_be_left_out_of_the_log(tmp_path):
    settings = {"tenants": {"fivedoctors": {"answer": "8b", "rewriters": {}}}, "log": str(tmp_path), "log_texts": False}
    with loopback_llm() as url:
        settings["tenants"]["fivedoctors"]["rewriters"] = {"8b": chat(url)}
        app = create_app(ServingSettings.model_validate(settings))
        with AsgiServer(app) as server:
            httpx.post(server.url + ROUTE, json=QUERY, trust_env=False)
    [line] = lines_of(tmp_path, "answer")
    assert "query" not in line and "rewritten_query" not in line


# The model servers


def test_a_killed_model_server_is_started_again_and_nobody_gets_a_wrong_answer(tmp_path):
    model = make_model(tmp_path / "m", prefix="改写 ", delay=0.02)
    with drop_in(tmp_path, rewriters={"8b": {"model": str(model)}}, timeout=5.0) as client:
        pids = set(_children())

        def ask(number: int) -> tuple[str, str]:
            answer = client.post(ROUTE, json={**QUERY, "query": f"问题{number}"})
            assert answer.status_code == 200
            return answer.json()["rewritten_query"], answer.headers["x-rewrite-source"]

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask, number) for number in range(40)]
            [pid] = pids
            os.killpg(pid, signal.SIGKILL)
            asked += [pool.submit(ask, number) for number in range(40, 80)]
            for number, one in enumerate(asked):
                text, source = one.result()
                assert text == (f"改写 问题{number}" if source == "8b" else f"问题{number}")
        until(lambda: (s := client.get("/healthz").json())["status"] == "ok" and s["models"][0]["restarts"] == 1)
        assert ask(100) == ("改写 问题100", "8b")
    assert not _children()


def test_a_new_champion_is_swapped_in_without_a_pause(tmp_path):
    registry = tmp_path / "registry"
    _promote(registry, "v1", make_model(tmp_path / "m1", prefix="一 ", delay=0.05))
    with drop_in(tmp_path, rewriters={"8b": {"registry": str(registry)}}, timeout=5.0) as client:
        _promote(registry, "v2", make_model(tmp_path / "m2", prefix="二 "))
        seen = []
        while not seen or seen[-1] != "二 问":
            answer = client.post(ROUTE, json={**QUERY, "query": "问"})
            assert answer.headers["x-rewrite-source"] == "8b"
            seen.append(answer.json()["rewritten_query"])
            assert len(seen) < 2000
        assert seen == sorted(seen) and seen[0] == "一 问"
        assert client.get("/healthz").json()["models"][0]["version"] == "v2"
        assert metric(client, 'rewriter_swap_total{outcome="swapped",tenant="fivedoctors"}') == 1
        until(lambda: len(_children()) == 1)
        # Rolling back is the same.
        _promote(registry, "v1", tmp_path / "m1")
        until(lambda: client.get("/healthz").json()["models"][0]["version"] == "v1")
    assert not _children()


def test_a_champion_that_is_not_what_was_promoted_is_refused(tmp_path):
    registry = tmp_path / "registry"
    _promote(registry, "v1", make_model(tmp_path / "m1", prefix="一 "))
    with drop_in(tmp_path, rewriters={"8b": {"registry": str(registry)}}) as client:

        def refused(told: str) -> bool:
            state = client.get("/healthz").json()["models"][0]
            assert client.post(ROUTE, json={**QUERY, "query": "问"}).json() == {"rewritten_query": "一 问"}
            return told in state["refused_swap"] and state["version"] == "v1"

        # Files that changed after the promotion.
        changed = make_model(tmp_path / "m2", prefix="二 ")
        _promote(registry, "v2", changed, sha256="0" * 64)
        until(lambda: refused("not those that were promoted"))
        # A server that answers otherwise than at the promotion.
        record = {"answers": [f"别的 {number}" for number in range(8)]}
        tenant = load_tenant("fivedoctors")
        write_json(fingerprint_file(registry / "fingerprints", model_hash(changed), tenant, 24), record)
        _promote(registry, "v2", changed)
        until(lambda: refused("answers to the fixed prompts"))
        # A model that cannot answer, one whose server does not come up, and a file that is no champion.
        broken = make_model(tmp_path / "m3", prefix="三 ")
        (broken / "answers.json").write_text('{"start_seconds": 0}')
        _promote(registry, "v3", broken)
        until(lambda: refused("got no answer"))
        (broken / "answers.json").write_text("{}")
        _promote(registry, "v3", broken)
        until(lambda: refused("the server ended"))
        (registry / "fivedoctors" / "champion.json").write_text("{}")
        until(lambda: refused("champion.json"))
        assert metric(client, 'rewriter_swap_total{outcome="refused",tenant="fivedoctors"}') == 5
        assert len(_children()) == 1
    assert not _children()


def _promote(registry: Path, version: str, model: Path, sha256: str | None = None) -> None:
    champion = {"version": version, "model": str(model), "model_sha256": sha256 or model_hash(model), "decided_at": ""}
    write_json(registry / "fivedoctors" / "champion.json", champion)


def _children() -> list[int]:
    """Return the pids of this process's model servers that run."""
    import psutil

    return [
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "loopback_model" in " ".join(child.cmdline())
    ]
