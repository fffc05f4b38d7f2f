"""Quotas, bodies, request ids and the request log, over real HTTP."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from rag.service.request_log import log_requests
from rag.settings import ServiceSettings
from tests.support.rag_server import add_sample_tenants, search, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag") / "data"
    add_sample_tenants(folder)
    return folder


def test_a_tenant_sends_no_more_requests_than_it_may(folder: Path) -> None:
    settings = ServiceSettings.model_validate({"tenants": {"chengla": {"requests_per_minute": 3}}})
    with serving(folder, settings) as url:
        answers = [search(url, tenant_id="chengla") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        wait = answers[3].headers["retry-after"]
        assert 1 <= int(wait) <= 61
        assert answers[3].json() == {"detail": f"more than 3 requests in a minute: wait {wait} s"}
        assert search(url).status_code == 200


def test_a_body_that_is_too_long_is_refused_however_it_is_sent(folder: Path) -> None:
    with serving(folder, ServiceSettings(max_body_mb=2)) as url:
        too_long = b'{"query": "' + b"a" * 1_000_000 + b'"}'
        for body in (too_long, iter([too_long])):  # with a Content-Length, and chunked
            response = httpx.post(f"{url}/ask", content=body, timeout=60, trust_env=False)
            assert (response.status_code, response.json()) == (413, {"detail": "the body is longer than 1000000 bytes"})
        document = url + "/api/tenants/fivedoctors/knowledge_bases/default/documents/long.txt"
        assert httpx.put(document, content=b"a" * 2_000_001, timeout=60, trust_env=False).status_code == 413
        assert httpx.put(document, content=b"a" + b" " * 1_999_999, timeout=60, trust_env=False).status_code == 201


def test_a_body_that_trickles_is_given_up(folder: Path) -> None:
    with serving(folder, ServiceSettings(body_seconds=0.3)) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
            connection.sendall(b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            connection.sendall(b'Content-Length: 100\r\n\r\n{"query"')
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"detail":"the body did not arrive within 0.3 s"}')


def test_a_client_that_goes_away_amid_its_body_is_counted_and_nothing_fails(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(folder) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
            connection.sendall(b"PUT /api/tenants/fivedoctors/knowledge_bases/default/documents/a.txt HTTP/1.1\r\n")
            connection.sendall(b"Host: localhost\r\nContent-Length: 100\r\n\r\nhalf")
        while 'status="499"' not in httpx.get(f"{url}/metrics", trust_env=False).text:
            time.sleep(0.01)
    assert capfd.readouterr().err == ""


def test_a_request_keeps_its_id_or_gets_one(folder: Path) -> None:
    with serving(folder) as url:
        given = [
            httpx.get(f"{url}/healthz", headers={"X-Request-ID": name}, trust_env=False).headers["x-request-id"]
            for name in ("shop-42.a_B", "two words", "x" * 65)
        ]
    assert given[0] == "shop-42.a_B"
    assert len(given[1]) == len(given[2]) == 32 and given[1] != given[2]


def test_the_log_has_a_line_a_request_without_its_query(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = ServiceSettings.model_validate({"tenants": {"chengla": {"log_query_text": True}}})
    log_requests(True)
    try:
        with serving(folder, settings) as url:
            answer = search(url)
            search(url, tenant_id="chengla", query="课程多少钱")
            search(url, tenant_id="nobody")
    finally:
        log_requests(False)
    said = capfd.readouterr().err
    first, second, third = (json.loads(line) for line in said.splitlines())
    assert first["request_id"] == answer.headers["x-request-id"]
    assert (first["route"], first["tenant"], first["status"]) == ("/api/chat/general_rag", "fivedoctors", 200)
    assert first["ms"] > 0 and first["channels"]["dense"] == "on" and "鱼油" not in said
    assert second["query"] == "课程多少钱" and "query" not in third
    assert (third["tenant"], third["status"]) == ("", 404)
