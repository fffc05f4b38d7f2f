"""A document that is replaced while it is searched is always found, in its old or its new version, never in both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rag.build_index import build_index
from rag.catalogue.catalogue import Catalogue
from rag.documents.records import Document, Passage
from rag.index.indexer import Indexer, open_engine
from rag.index.keyword_vectors import points_of
from rag.models.embedder import embedder_maker
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import SearchRequest
from rag.settings import ServiceSettings
from tests.support.loopback_llm import Fault, embed_all, loopback_llm
from tests.support.loopback_qdrant import qdrant_server
from tests.support.rag_server import HEALTH, RETRIEVER, add_knowledge_base, recall, serving

KB = "/api/tenants/fivedoctors/knowledge_bases/default"
PARAGRAPHS = 3
QUERY = "玛咖片说明"


def text(version: int) -> str:
    """A document whose passages all change with the version, and move: one more is in front of every second one."""
    lines = [f"玛咖片说明第{part}段，版本{version}。" for part in range(PARAGRAPHS)]
    return "\n\n".join(["玛咖片说明前言。"] * (version % 2) + lines)


def put(url: str, content: str, name: str = "maca.txt") -> None:
    answer = httpx.put(f"{url}{KB}/documents/{name}", content=content.encode(), timeout=60, trust_env=False)
    assert answer.status_code in (200, 201), answer.text


def found_version(url: str) -> int:
    """The version that a search finds the whole document in."""
    hits = [hit for hit in recall(url, query=QUERY, top_k=20) if hit["doc_id"].startswith("maca.txt#")]
    shown = {hit["doc_id"]: hit["content"] for hit in hits}
    versions = {content.split("版本")[1] for content in shown.values() if "版本" in content}
    assert len(shown) == len(hits) and len(versions) == 1, hits
    version = int(versions.pop().rstrip("。"))
    assert [shown[f"maca.txt#{n}"] for n in range(1, len(shown) + 1)] == text(version).split("\n\n"), hits
    return version


@contextmanager
def searching(find: list[Callable[[], int]]) -> Iterator[list[int]]:
    """Versions found, by as many threads as there are ways to search, until the block ends."""
    found: list[int] = []
    stop = threading.Event()

    def search(one: Callable[[], int]) -> None:
        while not stop.is_set():
            found.append(one())

    with ThreadPoolExecutor(len(find)) as pool:
        running = [pool.submit(search, one) for one in find]
        try:
            yield found
        finally:
            stop.set()
        for one in running:
            one.result()


@pytest.mark.parametrize("replacements", [20, pytest.param(200, marks=pytest.mark.full)])
def test_under_load_every_search_finds_one_version(tmp_path: Path, replacements: int) -> None:
    add_knowledge_base(tmp_path / "data", "fivedoctors", HEALTH)
    with serving(tmp_path / "data") as url:
        put(url, text(0))
        with searching([lambda: found_version(url)] * 4) as found:
            for version in range(1, replacements + 1):
                put(url, text(version))
        assert found_version(url) == replacements
        assert len(found) > replacements / 4 and len(set(found)) > 5


def test_a_slow_embedder_leaves_the_old_version_until_the_new_one_is_whole(tmp_path: Path) -> None:
    slow = threading.Event()

    def embed(body: dict) -> object:
        if slow.is_set() and isinstance(body["input"], list) and "版本1" in str(body["input"]):
            time.sleep(1.0)
        return embed_all(body)

    with loopback_llm(embed=embed) as llm:
        settings = ServiceSettings(retriever=f"{llm}#m")
        Catalogue(tmp_path / "data").close()
        with serving(tmp_path / "data", settings) as url:
            httpx.post(f"{url}{KB}".rsplit("/", 1)[0], json={"name": "default"}, trust_env=False)
            put(url, text(0))
            slow.set()
            with searching([lambda: found_version(url)] * 2) as found:
                put(url, text(1))
            assert found.count(0) > 1 and found_version(url) == 1


def test_an_embedder_that_fails_leaves_the_old_version(tmp_path: Path) -> None:
    fails = threading.Event()

    def embed(body: dict) -> object:
        if fails.is_set() and "版本1" in str(body["input"]):
            return Fault(status=400)
        return embed_all(body)

    with loopback_llm(embed=embed) as llm:
        Catalogue(tmp_path / "data").close()
        with serving(tmp_path / "data", ServiceSettings(retriever=f"{llm}#m")) as url:
            httpx.post(f"{url}{KB}".rsplit("/", 1)[0], json={"name": "default"}, trust_env=False)
            put(url, text(0))
            fails.set()
            failed = httpx.put(f"{url}{KB}/documents/maca.txt", content=text(1).encode(), trust_env=False)
            assert failed.status_code == 503 and found_version(url) == 0
            # What is deleted by name is gone at once, whatever the index holds.
            assert httpx.delete(f"{url}{KB}/documents/maca.txt", trust_env=False).status_code == 204
            assert recall(url, query=QUERY) == []


def test_workers_switch_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant_server() as qdrant:
        monkeypatch.setenv("QDRANT_URL", qdrant)
        add_knowledge_base(tmp_path / "data", "fivedoctors", HEALTH)
        with serving(tmp_path / "data") as one, serving(tmp_path / "data") as other:
            put(one, text(0))
            assert found_version(other) == 0
            with searching([lambda: found_version(one), lambda: found_version(other)]) as found:
                for version in range(1, 9):
                    put((one, other)[version % 2], text(version))
                    assert found_version(one) >= version and found_version(other) >= version
            assert found


def test_a_folder_that_is_built_beside_the_service_is_switched_as_a_whole(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "other.txt").write_text("钙片睡前服用。", encoding="utf-8")
    for version in range(2):
        (docs / "maca.txt").write_text(text(version), encoding="utf-8")
        if version == 0:
            build_index(docs, tmp_path / "data", "fivedoctors", retriever=RETRIEVER)
            service = serving(tmp_path / "data")
            url = service.__enter__()
    try:
        with searching([lambda: found_version(url)] * 2) as found:
            build_index(docs, tmp_path / "data", "fivedoctors", retriever=RETRIEVER)
            deadline = time.monotonic() + 30
            while 1 not in found:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert found_version(url) == 1
    finally:
        service.__exit__(None, None, None)


def test_what_is_written_and_not_switched_to_does_not_crowd_out_what_is_searched(tmp_path: Path) -> None:
    add_knowledge_base(tmp_path, "fivedoctors", {f"part{n}": f"配件说明，第{n}件。" for n in range(60)})
    catalogue = Catalogue(tmp_path)
    indexer = Indexer(catalogue, open_engine(tmp_path), embedder_maker("hashing"))
    kb = catalogue.knowledge_bases()[0]
    opened = indexer.open(kb)
    assert opened is not None

    def find() -> set[str]:
        request = SearchRequest("配件说明", "fivedoctors", top_k=30)
        return {hit.content for hit in asyncio.run(Retriever(catalogue, indexer).retrieve(kb, request)).hits}

    before = find()
    # As in the midst of catching up: vectors of the replacements are there, and match better.
    revision = kb.revision
    catalogue.put_documents(
        kb.id, [Document(f"part{n}", (Passage(f"part{n}", f"配件说明配件说明 {n}"),)) for n in range(60)]
    )
    changes = list(catalogue.changes(kb.id, revision))
    indexer.engine.upsert(opened.space, points_of(changes, opened.embedder, opened.version.recipe.mean_length))
    assert len(before) == len(find()) == 30 and all("，第" in content for content in find())
    indexer.close()
    catalogue.close()


def test_what_replaced_documents_held_is_not_kept_once_it_is_indexed(tmp_path: Path) -> None:
    add_knowledge_base(tmp_path, "fivedoctors", HEALTH)
    catalogue = Catalogue(tmp_path)
    indexer = Indexer(catalogue, open_engine(tmp_path), embedder_maker("hashing"))
    kb = catalogue.find_knowledge_base("fivedoctors", "default")
    assert kb is not None
    opened = indexer.open(kb)
    for version in range(3):
        catalogue.put_documents(kb.id, [Document("0-usage", (Passage("0-usage", f"鱼油版本{version}"),))])
        indexer.catch_up(kb)
    assert opened is not None and indexer.engine.count(opened.space) == len(HEALTH)
    assert catalogue.database.connection.execute("SELECT count(*) FROM superseded").fetchone() == (0,)
    indexer.close()
    catalogue.close()
