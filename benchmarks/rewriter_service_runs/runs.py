"""The drop-in in a process of its own, asked over HTTP; the same prompts of the model server itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil

from data_prep.prompt import build_messages
from evaluation.systems import answer_limit
from export.serving.contract import RewriteRequest
from export.serving.rewriters import as_trained
from reward.settings.recipe import TenantSettings, load_tenant

START_SECONDS = 300.0
CLIENTS = 8
FALLBACK_PAUSE = 0.2  # seconds: who asks at once again takes the processor from the server that starts
_ASKED = ("怎么吃", "多少钱", "孕妇能用吗", "保质期多久", "有副作用吗", "老人可以吃吗", "怎么保存", "一天几次")
_ABOUT = ("鱼油", "钙片", "益生菌", "蛋白粉", "褪黑素", "叶黄素", "氨糖", "胶原蛋白")


@dataclass(frozen=True)
class Running:
    """A drop-in and its model server."""

    url: str
    process: subprocess.Popen[str]
    tenant: TenantSettings
    max_new_tokens: int

    def backend(self) -> psutil.Process:
        """Return the model server's process, the one that the drop-in started."""
        [server] = psutil.Process(self.process.pid).children()
        return server

    def backend_url(self) -> str:
        return f"http://127.0.0.1:{self._option('--port')}"

    def served_model(self) -> str:
        return self._option("--served-model-name")

    def _option(self, name: str) -> str:
        command = self.backend().cmdline()
        return command[command.index(name) + 1]


@dataclass(frozen=True)
class Latency:
    """(p50, p95) in ms of either way, and the median of what the drop-in took longer for the same request.

    Args:
        cpu: milliseconds of the drop-in's processor time for a request.
        different: answers of the drop-in that are not the model server's. vLLM itself gives a prompt that it has in its
            cache another answer now and then.
        original: answers that are the original query.
    """

    requests: int
    plain: tuple[float, float]
    drop_in: tuple[float, float]
    added: float
    cpu: float
    different: int
    original: int


@dataclass(frozen=True)
class Kills:
    """What became of the requests while the model server was killed."""

    kills: int
    requests: int
    rewritten: int
    original: int
    wrong: int
    lost: int


@contextmanager
def serving(model: Path, tenant: str, folder: Path, timeout: float, *, vllm: bool) -> Iterator[Running]:
    """Run the drop-in in front of a model; it ends with the block.

    Args:
        vllm: serve the model with vLLM, else with the loopback server.

    Raises:
        RuntimeError: it does not start.
    """
    served = {"rewriters": {"model": {"model": str(model)}}, "answer": "model", "timeout": timeout}
    settings = folder / "serving.yaml"
    settings.write_text(json.dumps({"tenants": {tenant: served}, "log": str(folder / "log")}), encoding="utf-8")
    module = "export.serve" if vllm else "benchmarks.rewriter_service_runs.drop_in"
    command = [sys.executable, "-m", module, "--settings", str(settings), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = next((line.split()[-1] for line in process.stdout if line.startswith("serving")), None)
            if url is None:
                raise RuntimeError("the drop-in did not start: its log on standard error says why")
            yield Running(url, process, load_tenant(tenant), answer_limit(model))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def measure_latency(run: Running, requests: int) -> Latency:
    """Ask both by turns; the first tenth warms up and does not count."""
    times: dict[str, list[float]] = {"plain": [], "drop_in": []}
    different = original = 0
    bodies = [_body(run, number) for number in range(requests)]
    model = run.served_model()
    prompts = [_prompt(run, model, body) for body in bodies]
    with (
        httpx.Client(base_url=run.url, trust_env=False, timeout=60) as front,
        httpx.Client(base_url=run.backend_url(), trust_env=False, timeout=60) as back,
    ):
        for number in range(-(requests // 10), requests):
            if number == 0:
                before = _processor_seconds(run)
            body, prompt = bodies[number % requests], prompts[number % requests]
            # They take turns at being first: the second one finds the prompt in vLLM's cache.
            ways = ("plain", "drop_in") if number % 2 else ("drop_in", "plain")
            texts: dict[str, str] = {}
            for way in ways:
                started = time.perf_counter()
                if way == "plain":
                    answer = back.post("/v1/chat/completions", json=prompt)
                else:
                    answer = front.post("/api/rewrite_query", json=body)
                milliseconds = (time.perf_counter() - started) * 1000
                texts[way] = _text(answer.json())
                if number >= 0:
                    times[way].append(milliseconds)
                    original += answer.headers.get("x-rewrite-source") == "original"
            different += number >= 0 and texts["drop_in"] != texts["plain"]
    cpu = (_processor_seconds(run) - before) * 1000 / requests
    added = median(mine - theirs for mine, theirs in zip(times["drop_in"], times["plain"], strict=True))
    return Latency(
        requests, _percentiles(times["plain"]), _percentiles(times["drop_in"]), added, cpu, different, original
    )


def measure_kills(run: Running, requests: int, kills: int) -> Kills:
    """Let clients ask while the model server is killed `kills` times; go on until `requests` were asked and the server
    answers again after the last kill."""
    model, bodies = run.served_model(), [_body(run, number) for number in range(64)]
    with httpx.Client(base_url=run.backend_url(), trust_env=False, timeout=60) as back:
        answers = [back.post("/v1/chat/completions", json=_prompt(run, model, body)) for body in bodies]
    expected = [_text(answer.json()) for answer in answers]
    counts = {"rewritten": 0, "original": 0, "wrong": 0, "lost": 0}
    lock, done = threading.Lock(), threading.Event()

    def ask_on(client_number: int) -> None:
        number = client_number
        with httpx.Client(base_url=run.url, trust_env=False, timeout=60) as client:
            while not done.is_set():
                which = number % len(bodies)
                outcome = _outcome(client, bodies[which], expected[which])
                number += CLIENTS
                with lock:
                    counts[outcome] += 1
                if outcome == "original":
                    time.sleep(FALLBACK_PAUSE)

    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(ask_on, number) for number in range(CLIENTS)]
        try:
            for _ in range(kills):
                before = counts["rewritten"]
                _until(lambda before=before: counts["rewritten"] > before + CLIENTS)
                os.killpg(run.backend().pid, signal.SIGKILL)
                _until(lambda: not _is_up(run))
                _until(lambda: _is_up(run))
            again = counts["rewritten"]
            _until(lambda: counts["rewritten"] > again + CLIENTS and sum(counts.values()) >= requests)
        finally:
            done.set()
        for one in asking:
            one.result()
    return Kills(kills, sum(counts.values()), **counts)


def _outcome(client: httpx.Client, body: dict[str, str], expected: str) -> str:
    try:
        answer = client.post("/api/rewrite_query", json=body)
        text = answer.json()["rewritten_query"]
    except (httpx.HTTPError, ValueError, KeyError):
        return "lost"
    if answer.headers.get("x-rewrite-source") == "original":
        told = "x-rewrite-failure" in answer.headers
        return "original" if told and text == body["query"] else "wrong"
    return "rewritten" if text == expected else "wrong"


def _processor_seconds(run: Running) -> float:
    times = psutil.Process(run.process.pid).cpu_times()
    return float(times.user + times.system)


def _is_up(run: Running) -> bool:
    answer = httpx.get(f"{run.url}/healthz", trust_env=False).json()
    return bool(answer["status"] == "ok")


def _until(true: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the model server did not come back within {START_SECONDS:g} s")
        time.sleep(0.02)


def _body(run: Running, number: int) -> dict[str, str]:
    about, asked = _ABOUT[number % len(_ABOUT)], _ASKED[number // len(_ABOUT) % len(_ASKED)]
    return {
        "query": f"{about}{asked}",
        "history": "",
        "thought": "",
        "tenant_id": run.tenant.tenant_id,
        "user_profile": f"{20 + number % 50}岁",
        "history_summary": f"用户在咨询{about}",
    }


def _prompt(run: Running, model: str, body: dict[str, str]) -> dict[str, Any]:
    sample = as_trained(RewriteRequest.model_validate(body).sample(run.tenant), run.tenant)
    return {
        "model": model,
        "messages": build_messages(sample, run.tenant),
        "temperature": 0.0,
        "max_tokens": run.max_new_tokens,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def _text(answer: dict[str, Any]) -> str:
    if "rewritten_query" in answer:
        return str(answer["rewritten_query"])
    return str(answer["choices"][0]["message"]["content"]).strip()


def _percentiles(milliseconds: list[float]) -> tuple[float, float]:
    cuts = quantiles(milliseconds, n=100, method="inclusive")
    return cuts[49], cuts[94]
