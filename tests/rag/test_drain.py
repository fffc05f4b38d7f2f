"""`python -m rag.serve`: what it refuses to start with, and how it stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.serve import main
from tests.support.commands import start_module
from tests.support.loopback_qdrant import qdrant_server
from tests.support.rag_server import REFUNDS, RETRIEVER, add_knowledge_base, recall, rewriter_service, search


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag") / "data"
    add_knowledge_base(folder, "chengla", REFUNDS, "faq")
    return folder


@contextmanager
def serve_process(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command in a process, and the lines it began with, up to the one with its address."""
    command = ["rag.serve", "--index", str(folder), "--port", "0", "--retriever", RETRIEVER, *options]
    process = start_module(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("serving on "):
                break
        yield process, lines
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def url_of(lines: list[str]) -> str:
    return lines[-1].split()[2]


def test_running_requests_are_finished_and_new_ones_refused_before_it_stops(folder: Path) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        asked.set()
        may_answer.wait(30)
        return 200, b'{"rewritten_query": "refund"}'

    with rewriter_service(answer) as rewriter, ThreadPoolExecutor(1) as pool:
        options = ["--rewriter_url", rewriter, "--rewriter_timeout", "30", "--log", "off"]
        with serve_process(folder, *options) as (process, lines):
            assert lines[0] == "chengla/faq: 1 passages\n"
            url = url_of(lines)
            running = pool.submit(search, url, tenant_id="chengla", kb_name="faq")
            assert asked.wait(30)
            assert httpx.get(f"{url}/healthz", trust_env=False).json()["status"] == "ok"
            os.kill(process.pid, signal.SIGTERM)
            while (health := httpx.get(f"{url}/healthz", trust_env=False)).status_code == 200:
                time.sleep(0.01)
            assert (health.status_code, health.json()["status"]) == (503, "draining")
            refused = search(url, tenant_id="chengla", kb_name="faq")
            assert (refused.status_code, refused.json()) == (503, {"detail": "the service is stopping"})
            may_answer.set()
            assert running.result().json()["data"]["rewritten_query"] == "refund"
            process.wait(30)
            assert process.stdout is not None and process.stderr is not None
            assert (process.stdout.read(), process.stderr.read()) == ("", "")


@pytest.mark.full
def test_an_idle_service_stops_at_once_and_starts_again(folder: Path) -> None:
    for _ in range(2):
        with serve_process(folder, "--log", "off") as (process, lines):
            assert {hit["doc_id"] for hit in recall(url_of(lines), tenant_id="chengla", kb_name="faq")} == {"f1"}
            os.kill(process.pid, signal.SIGINT)
            process.wait(30)


@pytest.mark.full
def test_a_service_with_keys_asks_for_them_unless_told_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    add_knowledge_base(folder, "chengla", REFUNDS, "faq")
    catalogue = Catalogue(folder)
    AccessKeys(catalogue).create("chengla", "search")
    catalogue.close()
    for options, status in (([], 401), (["--auth", "off"], 200)):
        with serve_process(folder, "--log", "off", *options) as (_, lines):
            assert search(url_of(lines), tenant_id="chengla", kb_name="faq").status_code == status


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that the command says when it does not start."""
    assert main(["--port", "0", "--retriever", RETRIEVER, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error.removeprefix("error: ").rstrip()


def test_a_taken_port_is_said_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, "--index", str(tmp_path / "absent"), "--port", str(port))
    assert said == f"127.0.0.1:{port} is taken by another program (choose another with --port)"


def test_a_missing_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--index", str(tmp_path / "absent")).startswith(f"{tmp_path / 'absent'}: no index there (")
    assert not (tmp_path / "absent").exists()


def test_a_service_open_to_everybody_must_be_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "--index", str(folder), "--host", "0.0.0.0").startswith(
        "--host 0.0.0.0: anybody could use it"
    )


@pytest.mark.full
def test_several_workers_serve_one_qdrant_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant_server() as qdrant:
        monkeypatch.setenv("QDRANT_URL", qdrant)
        add_knowledge_base(tmp_path / "data", "chengla", REFUNDS, "faq")
        with serve_process(tmp_path / "data", "--workers", "2", "--log", "off") as (process, lines):
            url = url_of(lines)
            for _ in range(20):  # each over a connection of its own
                assert {hit["doc_id"] for hit in recall(url, tenant_id="chengla", kb_name="faq")} == {"f1"}
            metrics = httpx.get(f"{url}/metrics", trust_env=False).text
            assert 'route="/api/chat/general_rag",status="200",tenant="chengla"} 20.0' in metrics
            os.kill(process.pid, signal.SIGTERM)
            process.wait(30)
            assert process.stderr is not None and process.stderr.read() == ""


def test_workers_need_a_qdrant_server(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QDRANT_URL", raising=False)
    said = refused(capsys, "--index", str(folder), "--workers", "2")
    assert said == "--workers: an embedded index is one process's; set QDRANT_URL to a Qdrant server"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "tenants: {chengla: {requests_per_minute: 0}}",
            "tenants.chengla.requests_per_minute: Input should be greater",
        ),
        ("tenant: {}", "tenant: Extra inputs are not permitted"),
        ("default: {channels: {sparse: true}}", "default.channels.sparse: Extra inputs are not permitted"),
        ("[1, 2]", "holds no settings"),
        ("a: [", "not YAML: "),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content, encoding="utf-8")
    assert refused(capsys, "--index", str(folder), "--settings", str(file)).startswith(f"{file}: {said}")
