"""The index follows the catalogue: opening, catching up, rebuilding, dropping, and what is done when it is lost."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase, TokenCounts
from rag.documents.records import Document, IngestError, Passage
from rag.documents.tokenizer import query_token_ids, tokenize
from rag.fair_shares import FairShares
from rag.index import indexer as indexer_module
from rag.index.engine import EngineUnavailable, Space
from rag.index.indexer import Indexer, OpenVersion, engine_of
from rag.index.keyword_vectors import bm25_weights
from rag.models.embedder import HashingEmbedder, HashingMaker
from tests.support.loopback_qdrant import qdrant_server


@pytest.fixture(params=["edge", "server"])
def qdrant_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "edge":
        yield None
    else:
        with qdrant_server() as url:
            yield url


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def indexer(catalogue: Catalogue, qdrant_url: str | None) -> Iterator[Indexer]:
    opened = make_indexer(catalogue, qdrant_url)
    yield opened
    opened.close()


def make_indexer(catalogue: Catalogue, qdrant_url: str | None = None) -> Indexer:
    return Indexer(catalogue, engine_of(catalogue.folder, qdrant_url), HashingMaker())


def document(name: str, text: str, *questions: str) -> Document:
    return Document(name, (Passage(f"{name}#1", text, questions),))


def put(catalogue: Catalogue, *documents: Document, prune: bool = False) -> KnowledgeBase:
    kb = catalogue.find_knowledge_base("t", "default") or catalogue.create_knowledge_base("t", "default")
    catalogue.put_documents(kb.id, documents, prune=prune)
    return now(catalogue)


def now(catalogue: Catalogue) -> KnowledgeBase:
    found = catalogue.find_knowledge_base("t", "default")
    assert found is not None
    return found


def built(indexer: Indexer, catalogue: Catalogue, *documents: Document) -> KnowledgeBase:
    indexer.rebuild(put(catalogue, *documents), lambda share: None)
    return now(catalogue)


def opened(indexer: Indexer, kb: KnowledgeBase) -> OpenVersion:
    found = indexer.open(kb)
    assert found is not None
    return found


def names(indexer: Indexer, catalogue: Catalogue, query: str, with_questions: bool = False) -> list[str]:
    """Of the documents that share a word with the query, best first, from the vectors that are open."""
    version, tokens = opened(indexer, now(catalogue)), query_token_ids(query)
    search = indexer.engine.search(version.space, None, (tokens, [1.0] * len(tokens)), 30, with_questions)
    rows = [(row.row_id, row.is_question) for row in asyncio.run(search)[1]]
    passages = catalogue.resolve(now(catalogue).id, rows)
    return list(dict.fromkeys(passages[row].document for row in rows if row in passages))


FISH_OIL, CALCIUM = document("fish_oil", "鱼油随餐服用"), document("calcium", "钙片睡前")


def test_bm25_weights_are_those_of_the_formula() -> None:
    ids, weights = bm25_weights(TokenCounts(np.array([3, 5, 9], np.uint32), np.array([2, 1, 1], np.uint16)), 8.0)
    damping = 1.2 * (1 - 0.75 + 0.75 * 4 / 8)
    assert ids == [3, 5, 9]
    assert weights == pytest.approx([2 * 2.2 / (2 + damping), 2.2 / (1 + damping), 2.2 / (1 + damping)])


def test_nothing_built_is_none_and_an_empty_knowledge_base_is_not_built(catalogue: Catalogue, indexer: Indexer) -> None:
    kb = catalogue.create_knowledge_base("t", "default")
    assert indexer.open(kb) is None and not indexer.needs_rebuild(kb)
    with pytest.raises(IngestError, match="t/default: holds no passages"):
        indexer.rebuild(kb, lambda share: None)
    kb = put(catalogue, FISH_OIL)
    assert indexer.open(kb) is None and indexer.needs_rebuild(kb) and indexer.catch_up(kb) == 0


def test_a_build_records_what_made_it_and_reports_progress(catalogue: Catalogue, indexer: Indexer) -> None:
    shares: list[float] = []
    version = indexer.rebuild(put(catalogue, FISH_OIL, CALCIUM), shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert (version.state, version.points, version.built_revision) == ("live", 2, 1)
    assert version == catalogue.version(version.id)
    assert version.recipe.embedder_id == HashingEmbedder.id and version.recipe.engine_id == indexer.engine.id
    mean = (len(tokenize("鱼油随餐服用")) + len(tokenize("钙片睡前"))) / 2
    assert version.recipe.mean_length == mean
    found = opened(indexer, now(catalogue))
    assert found.version == version and found.statistics == catalogue.token_frequencies(version.kb_id)
    assert np.linalg.norm(found.embedder.embed_query("鱼油")) == pytest.approx(1.0)


def test_catching_up_adds_replaces_and_removes(catalogue: Catalogue, indexer: Indexer) -> None:
    kb = built(indexer, catalogue, FISH_OIL, CALCIUM)
    assert names(indexer, catalogue, "鱼油") == ["fish_oil"]
    kb = put(catalogue, document("fish_oil", "益生菌冷藏"), document("q10", "辅酶", "心脏保健吃什么"))
    assert indexer.catch_up(kb) > 0 and indexer.catch_up(kb) == 0
    assert names(indexer, catalogue, "鱼油") == [] and names(indexer, catalogue, "益生菌") == ["fish_oil"]
    assert names(indexer, catalogue, "心脏") == []
    assert names(indexer, catalogue, "心脏", with_questions=True) == ["q10"]
    assert opened(indexer, kb).has_questions and indexer.engine.count(opened(indexer, kb).space) == 4
    catalogue.delete_document(kb.id, "q10")
    assert indexer.catch_up(kb) == 2
    assert indexer.engine.count(opened(indexer, kb).space) == 2
    assert catalogue.version(opened(indexer, kb).version.id).applied_revision == now(catalogue).revision


def test_catching_up_rests_between_pages_where_nobody_waits_for_it(catalogue: Catalogue) -> None:
    asked: list[tuple[str, bool]] = []

    class Searches(FairShares):
        def rest_after(self, tenant_id: str, seconds: float) -> float:
            asked.append((tenant_id, seconds > 0))
            return 0.0

    engine = engine_of(catalogue.folder, None)
    indexer = Indexer(catalogue, engine, HashingMaker(), Searches(1))
    built(indexer, catalogue, FISH_OIL)
    indexer.open(now(catalogue))
    kb = put(catalogue, *(document(f"d{n}", f"钙片{n}") for n in range(2 * indexer_module.CATCH_UP_PAGE + 1)))
    indexer.catch_up(kb)
    assert asked == [("t", False), ("t", True), ("t", True)]
    kb = put(catalogue, *(document(f"e{n}", f"钙片{n}") for n in range(2 * indexer_module.CATCH_UP_PAGE)))
    Indexer(catalogue, engine, HashingMaker(), Searches(1)).open(kb)  # a search waits
    assert len(asked) == 3
    indexer.close()


def test_questions_that_are_kept_again_come_back(catalogue: Catalogue, indexer: Indexer) -> None:
    kb = built(indexer, catalogue, FISH_OIL)
    passage = catalogue.passages(kb.id)[0]
    catalogue.put_questions(kb.id, passage.id, [("深海鱼怎么吃", 0.4)])
    indexer.catch_up(kb)
    for threshold, found in ((0.3, ["fish_oil"]), (0.5, []), (0.3, ["fish_oil"])):
        catalogue.keep_questions(kb.id, threshold)
        indexer.catch_up(kb)
        assert names(indexer, catalogue, "深海", with_questions=True) == found
    # … also when both happened since the index was last brought up to date.
    catalogue.keep_questions(kb.id, 0.5)
    catalogue.keep_questions(kb.id, 0.3)
    indexer.catch_up(kb)
    assert names(indexer, catalogue, "深海", with_questions=True) == ["fish_oil"]


def test_what_was_written_while_nothing_was_open_is_there_after_opening(
    catalogue: Catalogue, qdrant_url: str | None
) -> None:
    first = make_indexer(catalogue, qdrant_url)
    built(first, catalogue, FISH_OIL)
    first.close()
    put(catalogue, *(document(f"d{i}", f"钙片第{i}种") for i in range(200)))
    second = make_indexer(catalogue, qdrant_url)
    assert len(names(second, catalogue, "钙片")) == 30
    assert second.engine.count(opened(second, now(catalogue)).space) == 201
    second.close()


def test_searching_goes_on_with_what_is_open_until_the_rest_is_caught_up(
    catalogue: Catalogue, indexer: Indexer
) -> None:
    kb = built(indexer, catalogue, FISH_OIL)
    before = opened(indexer, kb)
    kb = put(catalogue, CALCIUM)
    assert opened(indexer, kb) is before  # brought up to date in the background, from here on
    deadline = time.monotonic() + 30
    while opened(indexer, kb).version.applied_revision < kb.revision:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert names(indexer, catalogue, "钙片") == ["calcium"]


def test_a_rebuild_by_another_process_is_taken_over_with_what_came_after_it(
    catalogue: Catalogue, indexer: Indexer, qdrant_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(indexer, catalogue, FISH_OIL)
    first = opened(indexer, now(catalogue)).version.id
    builder = make_indexer(catalogue, qdrant_url)
    builder.rebuild(now(catalogue), lambda share: None)
    builder.engine.close()
    kb = put(catalogue, CALCIUM)
    indexer.catch_up(kb)
    assert opened(indexer, kb).version.id == kb.live_version != first
    assert names(indexer, catalogue, "钙片") == ["calcium"]
    # Searches under way may still be using the earlier one …
    assert catalogue.retired_versions() == [first]
    monkeypatch.setattr(indexer_module, "GRACE_SECONDS", 0.0)
    indexer.drop_retired()
    assert catalogue.retired_versions() == [] and not (catalogue.folder / "versions" / str(first)).exists()


def test_workers_on_one_server_see_each_others_writes(catalogue: Catalogue) -> None:
    with qdrant_server() as url:
        one, other = make_indexer(catalogue, url), make_indexer(catalogue, url)
        kb = built(one, catalogue, FISH_OIL)
        assert opened(one, kb).version == opened(other, kb).version
        kb = put(catalogue, CALCIUM)
        assert one.catch_up(kb) == 1 and other.catch_up(kb) == 0  # written once, for both
        assert opened(other, kb).version.applied_revision == kb.revision
        assert names(other, catalogue, "钙片") == ["calcium"]
        one.close()
        other.close()


def test_a_dropped_knowledge_base_leaves_no_vectors(
    catalogue: Catalogue, indexer: Indexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = built(indexer, catalogue, FISH_OIL)
    space = opened(indexer, kb).space
    catalogue.drop_knowledge_base(kb.id)
    assert indexer.catch_up(kb) == 0
    monkeypatch.setattr(indexer_module, "GRACE_SECONDS", 0.0)
    indexer.drop_retired()
    assert not indexer.engine.exists(space) and catalogue.retired_versions() == []


def test_an_index_made_otherwise_is_refused_in_one_line(catalogue: Catalogue) -> None:
    first = make_indexer(catalogue)
    kb = built(first, catalogue, FISH_OIL)
    first.close()

    class OtherMaker(HashingMaker):
        id = "bge-m3"

    other = Indexer(catalogue, engine_of(catalogue.folder, None), OtherMaker())
    with pytest.raises(IngestError, match=f"t/default was indexed with {HashingEmbedder.id}, but this is bge-m3"):
        other.open(kb)
    other.close()
    with qdrant_server() as url:
        other = make_indexer(catalogue, url)
        with pytest.raises(IngestError, match="but this is qdrant-server"):
            other.open(kb)
        other.close()


@pytest.mark.parametrize("damage", ["missing", "no segments", "garbage"])
def test_a_lost_shard_asks_for_a_rebuild_and_never_stops_the_start(catalogue: Catalogue, damage: str) -> None:
    first = make_indexer(catalogue)
    kb = built(first, catalogue, FISH_OIL, CALCIUM)
    first.close()
    shard = catalogue.folder / "versions" / str(kb.live_version)
    if damage == "missing":
        shutil.rmtree(shard)
    elif damage == "no segments":
        shutil.rmtree(shard / "segments")
    else:
        for file in shard.rglob("*"):
            if file.is_file():
                file.write_bytes(b"garbage")
    second = make_indexer(catalogue)
    assert second.open(kb) is None and second.open(kb) is None and second.needs_rebuild(kb)
    second.rebuild(kb, lambda share: None)
    assert names(second, catalogue, "鱼油") == ["fish_oil"] and not second.needs_rebuild(now(catalogue))
    second.close()


def test_a_failed_catch_up_loses_nothing(catalogue: Catalogue) -> None:
    with qdrant_server() as url:
        indexer = make_indexer(catalogue, url)
        kb = built(indexer, catalogue, FISH_OIL)
        before = opened(indexer, kb)
    kb = put(catalogue, CALCIUM)
    with pytest.raises(EngineUnavailable):
        indexer.catch_up(kb)
    assert opened(indexer, kb) is before
    assert catalogue.version(before.version.id).applied_revision < kb.revision
    indexer.close()


def test_builds_of_one_folder_come_one_after_the_other(catalogue: Catalogue) -> None:
    kb = put(catalogue, *(document(f"d{i}", f"钙片第{i}种") for i in range(50)))
    indexer, running, most = make_indexer(catalogue), threading.Semaphore(0), []

    def build() -> None:
        def on_progress(share: float) -> None:
            if share < 1.0:
                most.append(len(catalogue.retired_versions()))

        indexer.rebuild(kb, on_progress)
        running.release()

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Each found the one before it published: at the third, one is live and one retired.
    assert most == [0, 0, 1] and len(catalogue.retired_versions()) == 2
    assert len(names(indexer, catalogue, "钙片")) == 30
    indexer.close()


def test_what_a_crash_undoes_is_written_again(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_indexer(catalogue)
    built(first, catalogue, FISH_OIL, document("q10", "辅酶"))
    opened(first, now(catalogue))
    version = now(catalogue).live_version
    assert version is not None
    # A shard as it is on the disk before anything is flushed: what a crash of the machine leaves.
    shard, as_on_disk = catalogue.folder / "versions" / str(version), catalogue.folder / "as-on-disk"
    shutil.copytree(shard, as_on_disk)
    kb = put(catalogue, CALCIUM)
    catalogue.delete_document(kb.id, "q10")

    def crash(space: Space) -> None:
        raise RuntimeError("a crash before the flush")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="a crash"):
        patched.setattr(first.engine, "flush", crash)
        first.catch_up(now(catalogue))
    assert names(first, catalogue, "钙片") == ["calcium"] and names(first, catalogue, "辅酶") == []
    found = catalogue.version(version)
    assert found.applied_revision == now(catalogue).revision > found.flushed_revision
    first.engine.close()
    shutil.rmtree(shard)
    as_on_disk.rename(shard)
    second = make_indexer(catalogue)
    assert names(second, catalogue, "钙片") == ["calcium"]
    assert second.engine.count(opened(second, now(catalogue)).space) == 2
    assert catalogue.version(version).flushed_revision == now(catalogue).revision
    second.catch_up(put(catalogue, document("e", "蛋白粉")))
    second.close()
    assert catalogue.version(version).flushed_revision == now(catalogue).revision
