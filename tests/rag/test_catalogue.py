"""The catalogue: what is written, what is kept of it, what an index has to follow, keys and clicks."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from rag.catalogue.access_keys import AccessKeys
from rag.catalogue.catalogue import Catalogue, KnowledgeBaseExists
from rag.catalogue.clicks import Click, Clicks
from rag.catalogue.database import FILE
from rag.catalogue.records import IndexRecipe, KnowledgeBase, RowKey
from rag.catalogue.token_statistics import TokenStatistics
from rag.documents.records import Document, IngestError, Passage
from rag.documents.tokenizer import TOKENIZER_ID, query_token_ids, token_id

RECIPE = IndexRecipe("hash", 4, "jieba", "edge", 10.0)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "data")


@pytest.fixture
def kb(catalogue: Catalogue) -> KnowledgeBase:
    return catalogue.create_knowledge_base("fivedoctors", "default")


def document(name: str, *texts: str, questions: tuple[str, ...] = ()) -> Document:
    return Document(name, tuple(Passage(f"{name}#{n}", text, questions) for n, text in enumerate(texts, start=1)))


def current(catalogue: Catalogue, kb: KnowledgeBase) -> KnowledgeBase:
    found = catalogue.find_knowledge_base(kb.tenant_id, kb.name)
    assert found is not None
    return found


def test_a_tenant_has_one_knowledge_base_of_a_name(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.create_knowledge_base("chengla", "default")
    with pytest.raises(KnowledgeBaseExists, match="fivedoctors/default"):
        catalogue.create_knowledge_base("fivedoctors", "default")
    assert [one.tenant_id for one in catalogue.knowledge_bases()] == ["chengla", "fivedoctors"]
    assert catalogue.knowledge_bases("fivedoctors") == [kb]


def test_a_passage_is_read_as_it_was_written(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    texts = ['"引号"\\与{"a": [1]}', "换行\n制表\t\x01", "😀\u2028\u00a0 e\u0301", "a\0b 鱼油", "null"]
    catalogue.put_documents(kb.id, [document("特殊'.txt", *texts)])
    stored = catalogue.document(kb.id, "特殊'.txt")
    assert [passage.content for passage in stored] == texts
    assert [passage.token_ids.tolist() for passage in stored] == [list(query_token_ids(text)) for text in texts]


def test_putting_the_same_again_changes_nothing(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    documents = [document("a.txt", "鱼油每日两粒", "钙片每日一片"), document("b.txt", "益生菌")]
    first = catalogue.put_documents(kb.id, documents)
    again = catalogue.put_documents(kb.id, documents)
    assert (first.added, again.added, again.unchanged) == (2, 0, 2)
    assert first.revision == again.revision == current(catalogue, kb).revision == 1
    assert list(catalogue.changes(kb.id, 1)) == []


def test_a_replaced_document_keeps_the_passages_it_still_holds(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一", "二", "三")])
    before = {passage.content: passage for passage in catalogue.document(kb.id, "a.txt")}
    catalogue.put_questions(kb.id, before["二"].id, [("二是什么", 0.9)])
    revision = current(catalogue, kb).revision
    change = catalogue.put_documents(kb.id, [document("a.txt", "二", "四", "一")])
    after = catalogue.document(kb.id, "a.txt")
    assert (change.added, change.replaced) == (0, 1)
    assert [(passage.key, passage.content) for passage in after] == [
        ("a.txt#1", "二"),
        ("a.txt#2", "四"),
        ("a.txt#3", "一"),
    ]
    assert after[0].id == before["二"].id and after[2].id == before["一"].id
    assert [question.text for question in catalogue.questions(kb.id, after[0].id)] == ["二是什么"]
    assert [(key.row_id, key.text) for key in catalogue.changes(kb.id, revision)] == [(after[1].id, "四")]
    assert catalogue.removals(kb.id, revision, change.revision) == [RowKey(before["三"].id, False)]
    assert catalogue.count_changes(kb.id, revision) == 2


def test_deleting_takes_passages_and_questions_along(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一", questions=("甲", "乙")), document("b.txt", "二")])
    (passage,) = catalogue.document(kb.id, "a.txt")
    rows = [RowKey(question.id, True) for question in catalogue.questions(kb.id, passage.id)]
    assert catalogue.delete_document(kb.id, "a.txt").deleted == 1
    assert catalogue.delete_document(kb.id, "a.txt").deleted == 0
    assert sorted(catalogue.removals(kb.id, 1, 2)) == sorted([*rows, RowKey(passage.id, False)])
    assert catalogue.resolve(kb.id, [*rows, RowKey(passage.id, False)]) == {}
    counts = current(catalogue, kb)
    assert (counts.documents, counts.passages, counts.questions) == (1, 1, 0)


def test_pruning_deletes_what_is_not_given(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一"), document("b.txt", "二")])
    change = catalogue.put_documents(kb.id, [document("b.txt", "二"), document("c.txt", "三")], prune=True)
    assert (change.added, change.unchanged, change.deleted) == (1, 1, 1)
    assert [row.name for row in catalogue.documents(kb.id)] == ["b.txt", "c.txt"]
    assert [row.name for row in catalogue.documents(kb.id, after="b.txt")] == ["c.txt"]


def test_a_write_that_fails_leaves_nothing_behind(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一")])
    clash = Document("b.txt", (Passage("b.txt#1", "二"), Passage("a.txt#1", "三")))
    for wrong, problem in (
        ([document("c", "四"), document("c", "五")], "c: given twice"),
        ([clash], "b.txt: holds the key"),
    ):
        with pytest.raises(IngestError, match=problem):
            catalogue.put_documents(kb.id, wrong)
    assert [row.name for row in catalogue.documents(kb.id)] == ["a.txt"]
    assert current(catalogue, kb).revision == 1


def test_ids_are_never_used_again(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一")])
    (gone,) = catalogue.document(kb.id, "a.txt")
    catalogue.delete_document(kb.id, "a.txt")
    catalogue.put_documents(kb.id, [document("a.txt", "一")])
    assert catalogue.document(kb.id, "a.txt")[0].id > gone.id


def test_questions_below_the_threshold_are_not_indexed(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "鱼油", questions=("人问的",)), document("b.txt", "钙")])
    first, second = catalogue.passages(kb.id)
    assert [passage.id for passage in catalogue.passages_without_questions(kb.id, 10)] == [first.id, second.id]
    catalogue.put_questions(kb.id, first.id, [("好", 0.9), ("差", 0.2)])
    catalogue.put_questions(kb.id, second.id, [])
    assert catalogue.passages_without_questions(kb.id, 10) == []
    assert catalogue.keep_questions(kb.id, 0.5) == 1
    kept = {question.text: question.kept for question in catalogue.questions(kb.id, first.id)}
    assert kept == {"人问的": True, "好": True, "差": False}
    assert [key.text for key in catalogue.index_keys(kb.id)] == ["鱼油", "钙", "人问的", "好"]
    revision = current(catalogue, kb).revision
    assert catalogue.keep_questions(kb.id, 0.1) == 2
    assert [key.text for key in catalogue.changes(kb.id, revision)] == ["差"]
    assert current(catalogue, kb).questions == 3


def test_rows_of_another_knowledge_base_are_not_found(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    other = catalogue.create_knowledge_base("chengla", "default")
    catalogue.put_documents(kb.id, [document("a.txt", "一", questions=("问",))])
    (passage,) = catalogue.passages(kb.id)
    (question,) = catalogue.questions(kb.id, passage.id)
    rows = [RowKey(passage.id, False), RowKey(question.id, True), RowKey(passage.id, False), RowKey(99, True)]
    assert {row: found.content for row, found in catalogue.resolve(kb.id, rows).items()} == {
        rows[0]: "一",
        rows[1]: "一",
    }
    assert catalogue.resolve(other.id, rows) == {}
    assert catalogue.question_texts(other.id, [question.id]) == {}
    assert catalogue.document(other.id, "a.txt") == [] and catalogue.passage(other.id, "a.txt#1") is None


def test_statistics_count_the_passages_that_hold_a_token(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "鱼油鱼油", "鱼", "钙")])
    statistics = TokenStatistics.from_bytes(catalogue.token_frequencies(kb.id))
    place = int(np.searchsorted(statistics.token_ids, token_id("鱼")))
    assert (statistics.passages, statistics.token_ids[place], statistics.frequencies[place]) == (3, token_id("鱼"), 2)
    empty = catalogue.create_knowledge_base("fivedoctors", "empty")
    assert TokenStatistics.from_bytes(catalogue.token_frequencies(empty.id)).passages == 0


def test_tokens_of_another_tokenizer_are_counted_again(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "鱼油鱼油"), document("b.txt", "钙")])
    fresh = [(key.tokens.token_ids.tolist(), key.tokens.counts.tolist()) for key in catalogue.index_keys(kb.id)]
    assert 2 in fresh[0][1]
    assert catalogue.mean_tokens(kb.id) == sum(sum(counts) for _, counts in fresh) / 2
    with catalogue.database.writing() as connection:
        connection.execute("UPDATE knowledge_bases SET tokenizer_id = 'older'")
        connection.execute("UPDATE passages SET token_ids = x'', token_counts = x'', tokens = 0")
    catalogue.tokenize_again(kb.id)
    again = [(key.tokens.token_ids.tolist(), key.tokens.counts.tolist()) for key in catalogue.index_keys(kb.id)]
    assert again == fresh and catalogue.tokenizer_id(kb.id) == TOKENIZER_ID


def test_a_published_version_retires_the_earlier_ones(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    first, left_half_built, third = (catalogue.begin_version(kb.id, RECIPE, b"s", b"t", 3, "test") for _ in range(3))
    catalogue.publish_version(first, points=5)
    assert current(catalogue, kb).live_version == first
    catalogue.publish_version(third, points=7)
    assert current(catalogue, kb).live_version == third
    assert catalogue.retired_versions() == [first, left_half_built]
    catalogue.publish_version(left_half_built, points=6)
    assert current(catalogue, kb).live_version == third, "an older build came later"
    version = catalogue.version(third)
    assert (version.state, version.points, version.recipe, version.applied_revision) == ("live", 7, RECIPE, 3)
    catalogue.mark_applied(third, 9)
    catalogue.mark_applied(third, 4)
    assert catalogue.version(third).applied_revision == 9
    catalogue.forget_version(first)
    catalogue.forget_version(third)  # live: stays
    assert catalogue.retired_versions() == [left_half_built] and catalogue.version(third)
    catalogue.drop_knowledge_base(kb.id)
    assert catalogue.retired_versions() == [left_half_built, third]


def test_removals_stay_until_no_version_needs_them(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一"), document("b.txt", "二")])
    catalogue.publish_version(catalogue.begin_version(kb.id, RECIPE, b"", b"", 1, "test"), 2)
    catalogue.delete_document(kb.id, "a.txt")
    assert len(catalogue.removals(kb.id, 1, 2)) == 1
    catalogue.publish_version(catalogue.begin_version(kb.id, RECIPE, b"", b"", 2, "test"), 1)
    assert catalogue.removals(kb.id, 0, 2) == []


def test_threads_write_beside_one_another(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    def write(thread: int) -> None:
        for n in range(20):
            catalogue.put_documents(kb.id, [document(f"{thread}-{n}", f"第{thread}组第{n}段")])

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = current(catalogue, kb)
    assert (after.documents, after.passages, after.revision) == (80, 80, 80)


def test_an_access_key_opens_its_tenant_until_it_is_revoked(catalogue: Catalogue, tmp_path: Path) -> None:
    keys = AccessKeys(catalogue)
    assert not keys.any()
    key = keys.create("fivedoctors", "search", "page")
    access = keys.check(key)
    assert access is not None and (access.tenant_id, access.scope) == ("fivedoctors", "search")
    assert keys.check(key + "x") is None and keys.check("") is None
    assert keys.revoke(access.key_id) and not keys.revoke(access.key_id)
    assert keys.check(key) is None
    assert keys.any(), "revoking the last key does not open the service"
    assert all(key.encode() not in path.read_bytes() for path in (tmp_path / "data").iterdir())


def test_clicks_are_read_from_a_time_on(catalogue: Catalogue, kb: KnowledgeBase) -> None:
    clicks = Clicks(catalogue)
    for day in (1, 2, 3):
        clicks.record(Click(kb.id, "鱼油", "鱼油 用法", "a.txt#1", day == 3, day, at=f"2026-11-0{day}T00:00:00+00:00"))
    assert [(click.position, click.clicked) for click in clicks.read(kb.id, "2026-11-02")] == [(2, False), (3, True)]
    assert list(clicks.read(kb.id + 1)) == []


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_catalogue_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(IngestError, match=rf"{FILE}: not usable"):
        Catalogue(tmp_path)


def test_a_catalogue_of_another_layout_is_refused(tmp_path: Path) -> None:
    Catalogue(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(IngestError, match="layout 99"):
        Catalogue(tmp_path)


def test_a_search_sees_a_replaced_document_as_of_the_revision_that_is_indexed(
    catalogue: Catalogue, kb: KnowledgeBase
) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一", "二", questions=("甲",)), document("b.txt", "三")])
    version = catalogue.begin_version(kb.id, RECIPE, b"", b"", 1, "test")
    catalogue.publish_version(version, 4)
    old = [RowKey(passage.id, False) for passage in catalogue.passages(kb.id)]
    asked = [RowKey(question.id, True) for question in catalogue.questions(kb.id, old[0].row_id)]
    before = catalogue.resolve(kb.id, [*old, *asked], 1)
    assert len(before) == 4
    # "二" moves up, "一" and its question go, "四" comes; b.txt is pruned, c.txt comes with the same write.
    change = catalogue.put_documents(kb.id, [document("a.txt", "二", "四"), document("c.txt", "五")], prune=True)
    rows = [*old, *asked, *(RowKey(passage.id, False) for passage in catalogue.passages(kb.id))]
    shown = catalogue.resolve(kb.id, rows, 1)
    assert {row: (one.key, one.content) for row, one in shown.items()} == {
        row: (one.key, one.content) for row, one in before.items()
    }
    now = {(one.key, one.content) for one in catalogue.resolve(kb.id, rows, change.revision).values()}
    assert now == {("a.txt#1", "二"), ("a.txt#2", "四"), ("c.txt#1", "五")}
    # Replaced again before the index held it: a search sees the first version, then the last.
    last = catalogue.put_documents(kb.id, [document("a.txt", "六")]).revision
    rows += [RowKey(passage.id, False) for passage in catalogue.passages(kb.id)]
    assert catalogue.resolve(kb.id, rows, 1).keys() == before.keys()
    assert {one.content for one in catalogue.resolve(kb.id, rows, change.revision).values()} == {"二", "四", "五"}
    assert {one.content for one in catalogue.resolve(kb.id, rows, last).values()} == {"五", "六"}
    # What is deleted by name is seen by no search, as of no revision.
    catalogue.delete_document(kb.id, "a.txt")
    assert {one.content for one in catalogue.resolve(kb.id, rows, 1).values()} == {"三"}
    # When every version holds the last write, nothing else is kept.
    catalogue.mark_applied(version, last + 1)
    catalogue.mark_cleaned(version, kb.id, last + 1)
    assert catalogue.resolve(kb.id, rows, 1) == {}


def test_documents_that_replace_nothing_are_seen_as_soon_as_they_are_indexed(
    catalogue: Catalogue, kb: KnowledgeBase
) -> None:
    catalogue.put_documents(kb.id, [document("a.txt", "一")])
    catalogue.put_documents(kb.id, [document("b.txt", "二")])
    rows = [RowKey(passage.id, False) for passage in catalogue.passages(kb.id)]
    assert len(catalogue.resolve(kb.id, rows, 1)) == 2


@pytest.mark.parametrize("layout", [1, 2, 3])
def test_a_folder_of_an_earlier_layout_is_opened_with_what_it_holds(tmp_path: Path, layout: int) -> None:
    catalogue = Catalogue(tmp_path / "data")
    kb = catalogue.create_knowledge_base("fivedoctors", "default")
    catalogue.put_documents(kb.id, [document("a.txt", "一")])
    catalogue.publish_version(catalogue.begin_version(kb.id, RECIPE, b"", b"", 1, "test"), 1)
    with catalogue.database.writing() as connection:
        connection.execute("ALTER TABLE versions DROP COLUMN flushed_revision")
        if layout <= 2:
            connection.execute("ALTER TABLE knowledge_bases DROP COLUMN fusion")
            connection.execute("ALTER TABLE versions DROP COLUMN mean_vector")
            connection.execute("DROP TABLE rerankers")
        if layout == 1:
            connection.execute("DROP TABLE superseded")
            connection.execute("ALTER TABLE documents DROP COLUMN switched")
            connection.execute("ALTER TABLE versions DROP COLUMN cleaned_revision")
        connection.execute(f"PRAGMA user_version = {layout}")
    catalogue.close()
    catalogue = Catalogue(tmp_path / "data")
    assert catalogue.put_documents(kb.id, [document("a.txt", "二")]).replaced == 1
    assert (catalogue.version(1).cleaned_revision, catalogue.version(1).flushed_revision) == (1, 1)
    catalogue.close()
