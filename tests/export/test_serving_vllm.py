"""`export/serve.sh` as a user runs it: vLLM behind the contract, the answers of the evaluation, a kill, an end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from data_prep.prompt import build_messages
from examples.make_tiny_model import main as make_tiny_model
from export.serving.fingerprint import fingerprint_samples
from reward.settings.recipe import load_tenant
from tests.support import ROOT
from tests.support.commands import run_python

pytestmark = pytest.mark.slow
START_SECONDS, NEW_TOKENS = 300, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rewriter")
    tenant = load_tenant("fivedoctors")
    rows = [{"text": build_messages(sample, tenant)[1]["content"]} for sample in fingerprint_samples(tenant)]
    text = folder / "text.jsonl"
    text.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    out = folder / "model"
    size = ["--hidden", "64", "--layers", "1"]
    assert make_tiny_model(["--tenant", "fivedoctors", "--text", str(text), "--out", str(out), *size]) == 0
    (out / "run.json").write_text(json.dumps({"max_new_tokens": NEW_TOKENS}))
    return out


def rewrites_of_the_evaluation(model: Path, samples, tenant, folder: Path) -> list[str]:
    prompts, out = folder / "prompts.jsonl", folder / "rewrites.jsonl"
    rows = [{"sample_id": sample.sample_id, "messages": build_messages(sample, tenant)} for sample in samples]
    prompts.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    options = ["--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    run = run_python("-m", "evaluation.generate_rewrites", *options, "--max-new-tokens", str(NEW_TOKENS))
    assert run.returncode == 0, run.stderr
    return [json.loads(line)["rewrite"] for line in out.read_text(encoding="utf-8").splitlines()]


def test_the_drop_in_answers_as_the_evaluation_measured(model, tmp_path):
    tenant = load_tenant("fivedoctors")
    samples = fingerprint_samples(tenant)
    expected = rewrites_of_the_evaluation(model, samples, tenant, tmp_path)
    command = ["bash", str(ROOT / "export/serve.sh"), "--tenant", "fivedoctors", "--model", str(model), "--port", "0"]
    log = tmp_path / "log"
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    with subprocess.Popen(
        [*command, "--log", str(log)], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as serving:
        try:
            url = next(line.split()[-1] for line in serving.stdout if line.startswith("serving"))
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:

                def ask(sample) -> httpx.Response:
                    context = sample.context
                    body = {"query": sample.original_query, "history": context.history_context, "thought": ""}
                    body |= {"user_profile": context.user_profile, "history_summary": context.history_summary}
                    return client.post("/api/rewrite_query", json={**body, "tenant_id": "fivedoctors"})

                answers = [ask(sample) for sample in samples]
                made = [a.json()["rewritten_query"] for a in answers if a.headers["x-rewrite-source"] == "model"]
                assert made == [text for text in expected if text] and len(made) > 4

                # The model server dies: the query itself, until it is back.
                [server] = psutil.Process(serving.pid).children()
                os.killpg(server.pid, signal.SIGKILL)
                answer = ask(samples[0])
                assert answer.json()["rewritten_query"] == samples[0].original_query
                assert answer.headers["x-rewrite-failure"] in ("starting", "connection")
                deadline = time.monotonic() + START_SECONDS
                while (state := client.get("/healthz").json())["status"] != "ok" or not state["models"][0]["restarts"]:
                    assert time.monotonic() < deadline
                    time.sleep(0.5)
                assert ask(samples[0]).json()["rewritten_query"] == answers[0].json()["rewritten_query"]
            started = psutil.Process(serving.pid).children(recursive=True)
        finally:
            serving.send_signal(signal.SIGTERM)
        assert serving.wait(90) == 0
    assert not [child for child in started if child.is_running()]
    assert (log / "fivedoctors-model.log").is_file()
