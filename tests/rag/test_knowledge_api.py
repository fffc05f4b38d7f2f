"""Managing knowledge bases over real HTTP: what is acknowledged is found, what is deleted is not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from rag.settings import ServiceSettings
from tests.support.loopback_qdrant import make_app
from tests.support.loopback_qdrant import serving as serving_qdrant
from tests.support.rag_server import HEALTH, add_knowledge_base, post, recall, search, serving

KB = "/api/tenants/fivedoctors/knowledge_bases/default"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_knowledge_base(tmp_path / "data", "fivedoctors", HEALTH)
    return tmp_path / "data"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as address:
        yield address


def put(url: str, name: str, content: str | bytes, kb: str = KB) -> httpx.Response:
    data = content.encode() if isinstance(content, str) else content
    return httpx.put(f"{url}{kb}/documents/{quote(name)}", content=data, timeout=60, trust_env=False)


def get(url: str, path: str, **params: Any) -> httpx.Response:
    return httpx.get(url + path, params=params, timeout=60, trust_env=False)


def delete(url: str, path: str) -> httpx.Response:
    return httpx.delete(url + path, timeout=60, trust_env=False)


def wait_for(ready: Callable[[], bool]) -> None:
    for _ in range(600):
        if ready():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


def test_what_is_added_is_found_by_the_next_search(url: str) -> None:
    response = put(url, "新品/玛咖.txt", "玛咖片适合熬夜加班的上班族，每日一片。")
    assert response.status_code == 201
    assert response.json() == {
        "name": "新品/玛咖.txt",
        "state": "added",
        "added": 1,
        "replaced": 0,
        "unchanged": 0,
        "revision": response.json()["revision"],
    }
    hit = recall(url, query="玛咖片适合谁", top_k=1)[0]
    assert (hit["doc_id"], hit["content"]) == ("新品/玛咖.txt#1", "玛咖片适合熬夜加班的上班族，每日一片。")


def test_the_same_file_again_changes_nothing_and_another_replaces_it(url: str) -> None:
    revision = put(url, "a.md", "# 退货\n\n玛咖片开封不退。").json()["revision"]
    again = put(url, "a.md", "# 退货\n\n玛咖片开封不退。")
    assert (again.status_code, again.json()["state"], again.json()["revision"]) == (200, "unchanged", revision)
    replaced = put(url, "a.md", "# 退货\n\n玛咖片七天内可退。")
    assert (replaced.status_code, replaced.json()["state"], replaced.json()["revision"]) == (
        200,
        "replaced",
        revision + 1,
    )
    contents = [hit["content"] for hit in recall(url, query="玛咖片退货", top_k=200)]
    assert any("七天内可退" in content for content in contents)
    assert not any("开封不退" in content for content in contents)


def test_a_form_with_a_file_is_the_same_as_the_file(url: str) -> None:
    address = f"{url}{KB}/documents/form.txt"
    sent = httpx.put(address, files={"file": ("any.bin", "玛咖片每日一片。".encode())}, timeout=60, trust_env=False)
    assert sent.status_code == 201
    assert put(url, "form.txt", "玛咖片每日一片。").json()["state"] == "unchanged"
    no_file = httpx.put(address, data={"note": "x"}, files={"f": ("", b"")}, timeout=60, trust_env=False)
    assert no_file.status_code in (400, 422) and set(no_file.json()) == {"detail"}


def test_a_deleted_document_is_found_no_more(url: str) -> None:
    assert recall(url, query="鱼油怎么服用", top_k=1)[0]["doc_id"] == "0-usage"
    assert delete(url, f"{KB}/documents/0-usage").status_code == 204
    assert "0-usage" not in {hit["doc_id"] for hit in recall(url, top_k=200)}
    again = delete(url, f"{KB}/documents/0-usage")
    assert (again.status_code, again.json()["detail"]) == (
        404,
        "unknown document '0-usage' of knowledge base 'default'",
    )


def test_documents_are_listed_by_pages_and_read(url: str) -> None:
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        page = get(url, f"{KB}/documents", after=after, limit=50).json()
        names += [document["name"] for document in page["documents"]]
        after = page["next"]
    assert names == sorted(HEALTH)
    shown = get(url, f"{KB}/documents/0-usage").json()
    assert shown == {"name": "0-usage", "passages": [{"doc_id": "0-usage", "content": HEALTH["0-usage"]}]}
    assert get(url, f"{KB}/documents/none").status_code == 404


def test_knowledge_bases_are_created_listed_filled_and_deleted(url: str) -> None:
    kbs = "/api/tenants/chengla/knowledge_bases"
    created = post(url, kbs, name="faq")
    assert created.status_code == 201 and created.json()["passages"] == 0
    assert (post(url, kbs, name="faq").status_code, post(url, kbs, name="../x").status_code) == (409, 422)
    assert recall(url, tenant_id="chengla", kb_name="faq") == []
    assert get(url, f"{kbs}/faq").json()["state"] == "empty"
    rows = [json.dumps({"_id": f"c{n}", "text": f"第{n}节课讲解真题。"}) for n in range(3)]
    added = put(url, "corpus.jsonl", "\n".join(rows), f"{kbs}/faq")
    assert (added.status_code, added.json()["added"]) == (201, 3)
    assert {hit["doc_id"] for hit in recall(url, tenant_id="chengla", kb_name="faq")} == {"c0", "c1", "c2"}
    shown = get(url, f"{kbs}/faq").json()
    assert (shown["state"], shown["passages"], shown["version"]["points"]) == ("live", 3, 3)
    assert [kb["name"] for kb in get(url, kbs).json()] == ["faq"]
    assert delete(url, f"{kbs}/faq").status_code == 204
    assert get(url, f"{kbs}/faq").status_code == 404 and get(url, kbs).json() == []


def test_a_rebuild_swaps_the_version_while_searches_go_on(url: str) -> None:
    before = get(url, KB).json()["version"]["id"]
    put(url, "late.txt", "玛咖片每日一片。")
    started = httpx.post(f"{url}{KB}/rebuild", timeout=60, trust_env=False)
    assert (started.status_code, started.json()) == (202, {"state": "rebuilding", "started": True})
    again = httpx.post(f"{url}{KB}/rebuild", timeout=60, trust_env=False)
    assert (again.status_code, again.json()["started"]) == (202, False)
    with ThreadPoolExecutor(1) as pool:
        rebuilt = pool.submit(wait_for, lambda: get(url, KB).json()["state"] == "live")
        while not rebuilt.done():
            assert len(recall(url, query="玛咖片", top_k=200)) == len(HEALTH) + 1
        rebuilt.result()
    after = get(url, KB).json()
    assert after["rebuild_failure"] == "" and after["version"]["id"] > before
    assert after["version"]["built_revision"] == after["revision"]
    assert recall(url, query="玛咖片", top_k=1)[0]["doc_id"] == "late.txt#1"


def test_many_changes_start_a_rebuild_by_themselves(url: str) -> None:
    before = get(url, KB).json()["version"]["id"]
    rows = [json.dumps({"_id": f"n{n}", "text": f"新品{n}号每日一片。"}) for n in range(250)]
    assert put(url, "more.jsonl", "\n".join(rows)).json()["added"] == 250
    wait_for(lambda: get(url, KB).json()["version"]["id"] > before)
    wait_for(lambda: get(url, KB).json()["state"] == "live")
    assert get(url, KB).json()["rebuild_failure"] == ""
    assert len(recall(url, query="新品每日一片", top_k=200)) == 200


def test_a_large_first_document_is_found_when_it_is_acknowledged(url: str) -> None:
    kbs = "/api/tenants/chengla/knowledge_bases"
    post(url, kbs, name="faq")
    rows = [json.dumps({"_id": f"c{n}", "text": f"第{n}节课讲解真题。"}) for n in range(1100)]
    assert put(url, "corpus.jsonl", "\n".join(rows), f"{kbs}/faq").json()["added"] == 1100
    assert len(recall(url, tenant_id="chengla", kb_name="faq", query="真题")) == 100
    assert get(url, f"{kbs}/faq").json()["version"]["points"] == 1100


def test_a_knowledge_base_can_be_deleted_while_it_is_rebuilt(url: str) -> None:
    assert httpx.post(f"{url}{KB}/rebuild", timeout=60, trust_env=False).status_code == 202
    assert delete(url, KB).status_code == 204
    assert search(url).status_code == 404
    assert post(url, "/api/tenants/fivedoctors/knowledge_bases", name="default").status_code == 201
    assert recall(url) == []


def test_what_is_stored_while_the_engine_is_away_is_found_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant = make_app("1.20.0")
    with ExitStack() as away, ExitStack() as service:
        engine = away.enter_context(serving_qdrant(qdrant))
        monkeypatch.setenv("QDRANT_URL", engine)
        add_knowledge_base(tmp_path / "data", "fivedoctors", HEALTH)
        url = service.enter_context(serving(tmp_path / "data"))
        assert put(url, "early.txt", "阿胶糕每日一块。").status_code == 201
        away.close()
        for refused in (search(url), put(url, "late.txt", "玛咖片每日一片。")):
            assert refused.status_code == 503 and set(refused.json()) == {"detail"}
        with serving_qdrant(qdrant, int(engine.rsplit(":", 1)[1])):
            assert put(url, "late.txt", "玛咖片每日一片。").json()["state"] == "unchanged"
            assert recall(url, query="玛咖片", top_k=1)[0]["doc_id"] == "late.txt#1"


def test_what_was_added_survives_the_service(folder: Path) -> None:
    with serving(folder) as url:
        put(url, "kept.txt", "玛咖片每日一片。")
    with serving(folder) as url:
        assert recall(url, query="玛咖片", top_k=1)[0]["doc_id"] == "kept.txt#1"


@pytest.mark.parametrize(
    ("name", "content", "status", "detail"),
    [
        ("a.exe", b"MZ", 415, "a.exe: of no kind that can be read"),
        ("a.txt", b"", 422, "a.txt: "),
        ("a.pdf", b"no pdf", 422, "a.pdf: no .pdf file"),
        ("a.txt", b"\xff\xfe\xfa", 422, "a.txt: "),
        ("c.jsonl", b'{"_id": "x"}\n{"_id": ', 422, "c.jsonl"),
        ("/etc/passwd.txt", b"x", 422, "name: "),
        ("a/../../b.txt", b"x", 422, "name: "),
        ("x" * 600 + ".txt", b"x", 422, "name: "),
    ],
)
def test_a_document_that_cannot_be_used_is_one_line(
    url: str, name: str, content: bytes, status: int, detail: str
) -> None:
    revision = get(url, KB).json()["revision"]
    # Dots and slashes are encoded, so that no client resolves them away.
    path = quote(name, safe="").replace(".", "%2E")
    response = httpx.put(f"{url}{KB}/documents/{path}", content=content, timeout=60, trust_env=False)
    assert response.status_code == status, response.text
    assert response.json()["detail"].startswith(detail) and "\n" not in response.json()["detail"]
    assert get(url, KB).json()["revision"] == revision


def test_a_tenant_holds_no_more_passages_than_it_may(folder: Path) -> None:
    settings = ServiceSettings.model_validate({"tenants": {"fivedoctors": {"max_passages": len(HEALTH) + 1}}})
    with serving(folder, settings) as url:
        assert put(url, "one.txt", "玛咖片每日一片。").status_code == 201
        refused = put(url, "two.txt", "阿胶糕每日一块。")
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "tenant 'fivedoctors' may hold 121 passages and questions: 121 held, 1 more given",
        )
        assert put(url, "one.txt", "玛咖片每日两片。").json()["state"] == "replaced"
        assert len(recall(url, top_k=200)) == len(HEALTH) + 1
