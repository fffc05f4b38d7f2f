"""Access keys over real HTTP: what each opens, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue
from rag.manage_keys import main as manage_keys
from tests.support.rag_server import add_sample_tenants, post, recall, search, serving

KBS = "/api/tenants/{}/knowledge_bases"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rag") / "data"
    add_sample_tenants(folder)
    return folder


def create_key(folder: Path, tenant: str, scope: str) -> str:
    catalogue = Catalogue(folder)
    key = AccessKeys(catalogue).create(tenant, "manage" if scope == "manage" else "search")
    catalogue.close()
    return key


@pytest.fixture(scope="module")
def searcher(folder: Path) -> str:
    return create_key(folder, "chengla", "search")


@pytest.fixture(scope="module")
def manager(folder: Path) -> str:
    return create_key(folder, "chengla", "manage")


@pytest.fixture(scope="module")
def locked(folder: Path, searcher: str) -> Iterator[str]:
    """URL of a service that asks for keys."""
    with serving(folder, keys=True) as address:
        yield address


def call(method: str, url: str, key: str = "", **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, url, headers=headers, timeout=60, trust_env=False, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/api/chat/general_rag", "/search", "/ask", "/feedback"])
def test_without_a_key_in_use_nothing_is_answered(locked: str, path: str) -> None:
    for key, detail in (
        ("", "an access key is needed: Authorization: Bearer KEY"),
        ("rag_x", "this key is not in use"),
    ):
        response = post(locked, path, key, query="课程", tenant_id="chengla", doc_id="c1", clicked=True)
        assert (response.status_code, response.json()) == (401, {"detail": detail})
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_names_its_tenant(locked: str, searcher: str) -> None:
    assert {hit["doc_id"] for hit in recall(locked, searcher, tenant_id=None, query="课程")} == {"c1", "c2", "c3"}
    assert {hit["doc_id"] for hit in recall(locked, searcher, tenant_id="chengla", kb_name="faq")} == {"f1"}


def test_another_tenant_is_refused_whether_or_not_it_exists(locked: str, searcher: str, manager: str) -> None:
    existing = search(locked, searcher, tenant_id="fivedoctors")
    assert existing.status_code == 403
    invented = search(locked, searcher, tenant_id="no-such-tenant")
    assert (invented.status_code, invented.content) == (existing.status_code, existing.content)
    for tenant in ("fivedoctors", "no-such-tenant"):
        assert call("GET", locked + KBS.format(tenant), manager).json() == existing.json()
    asked = {"query": "课程", "retrieval_setting": {"top_k": 3}}
    refused = [
        post(locked, "/retrieval", manager, knowledge_id=f"{tenant}/default", **asked)
        for tenant in ("fivedoctors", "no-such-tenant")
    ]
    assert refused[0].json()["error_code"] == 2001 and refused[0].content == refused[1].content


def test_a_search_key_manages_nothing(locked: str, searcher: str, manager: str) -> None:
    kb = locked + KBS.format("chengla") + "/default"
    for method, path in (("GET", "/documents"), ("PUT", "/documents/a.txt"), ("DELETE", ""), ("POST", "/rebuild")):
        response = call(method, kb + path, searcher)
        assert (response.status_code, response.json()) == (403, {"detail": "this key may search only"})
    assert call("GET", kb, searcher).json()["passages"] == 3
    assert len(call("GET", f"{kb}/documents", manager).json()["documents"]) == 3


def test_dify_is_given_its_error_codes(locked: str, searcher: str) -> None:
    asked = {"knowledge_id": "default", "query": "课程", "retrieval_setting": {"top_k": 3}}
    for key, code in (("", 1001), ("rag_x", 1002)):
        response = post(locked, "/retrieval", key, **asked)
        assert (response.status_code, response.json()["error_code"]) == (403, code)
    assert len(post(locked, "/retrieval", searcher, **asked).json()["records"]) == 3


def test_health_lists_only_the_keys_own(locked: str, searcher: str) -> None:
    assert call("GET", f"{locked}/healthz").json()["knowledge_bases"] == []
    listed = call("GET", f"{locked}/healthz", searcher).json()["knowledge_bases"]
    assert {kb["tenant_id"] for kb in listed} == {"chengla"}


def test_keys_are_created_listed_and_revoked(folder: Path, locked: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = ["--index", str(folder)]
    assert manage_keys(["create", *index, "--tenant", "fivedoctors", "--note", "shop"]) == 0
    key = capsys.readouterr().out.strip()
    assert search(locked, key).status_code == 200
    assert manage_keys(["list", *index]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    (row,) = [row for row in rows if row[5] == "shop"]
    assert row[1:3] == ["fivedoctors", "search"] and row[4] == "in use"
    assert key.encode() not in b"".join(path.read_bytes() for path in folder.glob("catalogue.sqlite*"))
    assert manage_keys(["revoke", *index, "--id", row[0]]) == 0
    assert search(locked, key).status_code == 401
    assert manage_keys(["revoke", *index, "--id", row[0]]) == 2
    assert capsys.readouterr().err == f"error: no key {row[0]} in use\n"
