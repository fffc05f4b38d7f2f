"""Who may reach a service without keys: no page of another site, no name that another site points here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.serve import main
from rag.settings import ServiceSettings
from tests.support.rag_server import REFUNDS, add_knowledge_base, serving

SEARCH = "/api/chat/general_rag"
BODY = {"query": "课程", "tenant_id": "chengla", "kb_name": "faq"}
REBUILD = "/api/tenants/chengla/knowledge_bases/faq/rebuild"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origins") / "data"
    add_knowledge_base(folder, "chengla", REFUNDS, "faq")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder, ServiceSettings(allowed_hosts=["rag", "*.shop.example"])) as address:
        yield address


def ask(url: str, method: str = "POST", path: str = SEARCH, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = BODY if method == "POST" else None
    return httpx.request(method, url + path, json=body, headers=named, timeout=30, trust_env=False).status_code


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("localhost", "127.0.0.1:8000", "[::1]:80", "rag:8000", "a.shop.example")),
        *((host, 400) for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "shop.example")),
        *((host, 400) for host in ("evil@localhost", "0x7f.1", "localhost:80:80", "")),
    ],
)
@pytest.mark.parametrize("path", [SEARCH, "/ask"])
def test_a_service_without_keys_answers_to_its_own_names(url: str, path: str, host: str, status: int) -> None:
    assert ask(url, path=path, Host=host) == status
    assert ask(url, "GET", "/healthz", Host=host) == status


@pytest.mark.parametrize("path", [SEARCH, "/ask", "/feedback", REBUILD])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},  # a form of another site
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "SELF"},
    ],
    ids=str,
)
def test_a_page_of_another_site_sends_nothing(url: str, path: str, headers: dict[str, str]) -> None:
    assert ask(url, path=path, **{name: value.replace("SELF", url) for name, value in headers.items()}) == 403


def test_the_own_page_a_link_and_a_program_are_served(url: str) -> None:
    assert ask(url, Sec_Fetch_Site="same-origin", Origin=url) == 200
    assert ask(url, Origin=url) == 200  # a browser before Sec-Fetch-Site
    assert ask(url, "GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200
    assert ask(url, "GET", "/healthz", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert ask(url) == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/page/page.js", "/nowhere"])
def test_every_answer_keeps_browsers_careful(url: str, path: str) -> None:
    headers = httpx.get(url + path, trust_env=False).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_the_docs_load_nothing_and_run_nothing(url: str) -> None:
    page = httpx.get(f"{url}/docs", trust_env=False)
    assert page.status_code == 200 and SEARCH in page.text
    assert "<script" not in page.text and "script-src" not in page.headers["content-security-policy"]
    assert re.findall(r'(?:src|href)="([^"]*)"', page.text) == ["/page/docs.css", "/openapi.json"]
    assert httpx.get(f"{url}/page/docs.css", trust_env=False).status_code == 200
    assert httpx.get(f"{url}/redoc", trust_env=False).status_code == 404


def test_the_first_key_closes_a_running_service(tmp_path: Path) -> None:
    add_knowledge_base(tmp_path, "chengla", REFUNDS, "faq")
    dify = {"knowledge_id": "chengla/faq", "query": "课程", "retrieval_setting": {"top_k": 1, "score_threshold": 0}}

    def statuses(url: str) -> list[int]:
        asked = [ask(url, path=path) for path in (SEARCH, "/ask", REBUILD)]
        listed = httpx.get(f"{url}/api/tenants/chengla/knowledge_bases", trust_env=False).status_code
        return [*asked, listed, httpx.post(f"{url}/retrieval", json=dify, trust_env=False).status_code]

    with serving(tmp_path) as url:
        assert statuses(url) == [200, 200, 202, 200, 200]
        assert httpx.get(f"{url}/healthz", trust_env=False).json()["knowledge_bases"]
        catalogue = Catalogue(tmp_path)
        keys = AccessKeys(catalogue)
        key = keys.create("chengla", "search")
        assert statuses(url) == [401, 401, 401, 401, 403]
        assert not httpx.get(f"{url}/healthz", trust_env=False).json()["knowledge_bases"]
        assert ask(url, Authorization=f"Bearer {key}") == 200
        keys.revoke(keys.rows()[0].key_id)
        assert ask(url) == 401  # closed it stays
        catalogue.close()


@pytest.mark.parametrize("host", ["a*b", "*evil", "a.*", "", "**"])
def test_a_host_that_is_no_pattern_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert main(["--index", str(tmp_path), "--port", "0", "--allowed-host", host]) == 2
    assert capsys.readouterr().err == f"error: --allowed-host {host}: a name, *.name, or * for any\n"
