"""`python -m export.serve` as a command: bad input in one line, a start that fails or is given up, an end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.rewriter_service_runs.loopback_model import make_model
from export.serve import main
from export.serving.settings import read_settings
from tests.support import ROOT

DROP_IN = "benchmarks.rewriter_service_runs.drop_in"


def start(*options: str) -> subprocess.Popen:
    """Run the command with the loopback model server in the place of vLLM."""
    command = [sys.executable, "-m", DROP_IN, *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def settings_file(folder: Path, **served) -> Path:
    path = folder / "serving.yaml"
    path.write_text(yaml.safe_dump({"tenants": {"fivedoctors": served}, "log": str(folder / "log")}))
    return path


URL = {"32b": {"url": "http://127.0.0.1:9"}}


@pytest.mark.parametrize(
    ("served", "told"),
    [
        ({"rewriters": URL, "answer": "8b"}, "answer: no rewriter '8b'"),
        ({"rewriters": {"x": {}}, "answer": "x"}, "give one of model, registry, chat_url, url"),
        ({"rewriters": {"x": {"url": "http://h", "model": "m"}}, "answer": "x"}, "found model, url"),
        ({"rewriters": {"x": {"chat_url": "http://h/v1"}}, "answer": "x"}, "needs max_new_tokens"),
        ({"rewriters": {"x": {"url": "http://u:p@h"}}, "answer": "x"}, "must not hold user or password"),
        ({"rewriters": URL, "answer": "32b", "shadow": {"rewriter": "8b"}}, "shadow.rewriter: no rewriter '8b'"),
        ({"rewriters": URL, "answer": "32b", "experiment": {"name": "a b", "arm": "32b", "share": 1}}, "name"),
        ({"rewriters": URL, "answer": "32b", "experiment": {"name": "a", "arm": "32b", "share": 0.5}}, "already"),
        ({"rewriters": URL, "answer": "32b", "timeout": 0}, "timeout"),
        ({"rewriters": URL, "answer": "32b", "time": 1}, "time: Extra"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(tmp_path, capsys, served, told):
    assert main(["--settings", str(settings_file(tmp_path, **served))]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "give --tenant with --model or --registry"),
        (["--tenant", "nobody", "--model", "m"], "nobody"),
        (["--tenant", "fivedoctors"], "give --tenant with"),
        (["--settings", "missing.yaml"], "missing.yaml: no such file"),
        (["--settings", "s.yaml", "--tenant", "x"], "leave --tenant"),
        (["--tenant", "fivedoctors", "--model", "m", "--host", "0.0.0.0"], "anybody could use it"),
        (["--tenant", "fivedoctors", "--model", "m", "--port", "99999"], "99999 cannot be used"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(capsys, monkeypatch, options, told):
    monkeypatch.delenv("REWRITER_API_KEY", raising=False)
    assert main(options) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: folder / "missing", "no such model folder"),
        (lambda folder: make_model(folder / "m", prefix="x", start_seconds=-1), "the server ended"),
    ],
)
def test_a_model_that_does_not_start_ends_the_command(tmp_path, make, told):
    with start("--tenant", "fivedoctors", "--model", str(make(tmp_path)), "--port", "0", "--log", str(tmp_path)) as one:
        out, error = one.communicate(timeout=60)
    assert one.returncode == 1 and told in error.splitlines()[-1] and "Traceback" not in error
    assert "serving" not in out


def test_a_start_that_takes_long_can_be_given_up(tmp_path):
    model = make_model(tmp_path / "m", prefix="x", start_seconds=600)
    with start("--tenant", "fivedoctors", "--model", str(model), "--port", "0", "--log", str(tmp_path)) as one:
        while "starting" not in one.stdout.readline():
            pass
        while not (tmp_path / "fivedoctors-model.log").exists():
            time.sleep(0.05)
        one.send_signal(signal.SIGTERM)
        _, error = one.communicate(timeout=60)
    assert one.returncode == 1 and "stopped while the models were starting" in error


def test_requests_under_way_are_finished_and_nothing_is_left_running(tmp_path):
    model = make_model(tmp_path / "m", prefix="改写 ", delay=0.5)
    with start("--tenant", "fivedoctors", "--model", str(model), "--port", "0", "--log", str(tmp_path)) as one:
        url = next(line.split()[-1] for line in one.stdout if line.startswith("serving"))
        asked = [f"{url}/api/rewrite_query", "-H", "Content-Type: application/json", "-d", '{"query": "怎么吃"}']
        request = subprocess.Popen(["curl", "-s", *asked], stdout=subprocess.PIPE, text=True)
        while "1.0" not in _gauge(url, "rewriter_backend_up"):
            time.sleep(0.05)
        time.sleep(0.2)  # it has been taken
        one.send_signal(signal.SIGTERM)
        assert "改写 怎么吃" in request.communicate(timeout=30)[0]
        assert one.wait(30) == 0
    assert not [line for line in os.popen("ps -eo args") if str(model) in line]


def _gauge(url: str, name: str) -> str:
    metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    return next(line for line in metrics.splitlines() if line.startswith(name + "{"))


def test_the_documented_settings_can_be_used(tmp_path):
    page = (ROOT / "docs/release.md").read_text(encoding="utf-8")
    [block] = [part for part in page.split("```") if part.startswith("yaml\n# serving.yaml")]
    path = tmp_path / "serving.yaml"
    path.write_text(block.removeprefix("yaml\n"))
    assert set(read_settings(path).tenants) == {"fivedoctors"}
