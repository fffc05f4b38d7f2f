"""Knowledge bases, their documents and passages: the truth that every index is derived from."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rag.catalogue.database import FILE, Database, now
from rag.catalogue.document_writer import DocumentWriter
from rag.catalogue.holdings import LimitReached, check_points
from rag.catalogue.records import (
    Change,
    DocumentRow,
    IndexKey,
    KnowledgeBase,
    Question,
    RowKey,
    StoredPassage,
    TokenCounts,
)
from rag.catalogue.row_resolution import read_passages, resolve_rows
from rag.catalogue.token_statistics import TokenStatistics, count_tokens
from rag.catalogue.versions import Versions
from rag.documents.records import Document, IngestError
from rag.documents.token_blobs import TokenBlobs, token_blobs
from rag.documents.tokenizer import TOKENIZER_ID

_KNOWLEDGE_BASE = (
    "SELECT id, tenant_id, name, revision, live_version, documents, passages, questions, created_at, fusion "
    "FROM knowledge_bases"
)
_LIVE_KEYS = (
    "SELECT id, 0, content, revision, token_ids, token_counts FROM passages WHERE kb_id = :kb AND revision > :after "
    "UNION ALL "
    "SELECT id, 1, text, revision, NULL, NULL FROM questions WHERE kb_id = :kb AND revision > :after AND kept "
    "ORDER BY 2, 1"
)


class KnowledgeBaseExists(Exception):
    pass


class Catalogue(Versions):
    """The SQLite truth of one data folder. Every write is one transaction: when a method returns, it is durable."""

    def __init__(self, folder: Path):
        """
        Raises:
            IngestError: the folder's catalogue is damaged or of another layout.
        """
        super().__init__(Database(folder))
        self.folder = folder

    def create_knowledge_base(self, tenant_id: str, name: str, most: int | None = None) -> KnowledgeBase:
        """Create one. `most`: how many the tenant may have.

        Raises:
            KnowledgeBaseExists: the tenant has one of that name.
            LimitReached: it has as many as it may.
        """
        try:
            with self.database.writing() as connection:
                held = "SELECT count(*), coalesce(sum(name = ?), 0) FROM knowledge_bases WHERE tenant_id = ?"
                count, same = connection.execute(held, (name, tenant_id)).fetchone()
                if most is not None and count >= most and not same:
                    raise LimitReached(f"tenant {tenant_id!r} may have {most} knowledge bases")
                connection.execute(
                    "INSERT INTO knowledge_bases (tenant_id, name, tokenizer_id, created_at) VALUES (?, ?, ?, ?)",
                    (tenant_id, name, TOKENIZER_ID, now()),
                )
        except sqlite3.IntegrityError:
            raise KnowledgeBaseExists(f"{tenant_id}/{name}: exists already") from None
        found = self.find_knowledge_base(tenant_id, name)
        assert found is not None
        return found

    def find_knowledge_base(self, tenant_id: str, name: str) -> KnowledgeBase | None:
        row = self.database.connection.execute(f"{_KNOWLEDGE_BASE} WHERE tenant_id = ? AND name = ?", (tenant_id, name))
        found = row.fetchone()
        return KnowledgeBase(*found) if found else None

    def knowledge_bases(self, tenant_id: str | None = None) -> list[KnowledgeBase]:
        """Return all knowledge bases, or one tenant's, by tenant and name."""
        rows = self.database.connection.execute(
            f"{_KNOWLEDGE_BASE} WHERE ?1 IS NULL OR tenant_id = ?1 ORDER BY tenant_id, name", (tenant_id,)
        )
        return [KnowledgeBase(*row) for row in rows]

    def drop_knowledge_base(self, kb_id: int) -> None:
        """Forget it and everything in it; its versions are retired."""
        with self.database.writing() as connection:
            connection.execute("UPDATE versions SET state = 'retired' WHERE kb_id = ?", (kb_id,))
            connection.execute("DELETE FROM knowledge_bases WHERE id = ?", (kb_id,))

    def drop_passages(self, kb_id: int, most: int) -> int:
        """Delete up to `most` passages of a knowledge base that is to be dropped; return how many there were. Its
        versions are retired: searches find nothing from now on."""
        with self.database.writing() as connection:
            connection.execute("UPDATE knowledge_bases SET live_version = NULL WHERE id = ?", (kb_id,))
            connection.execute("UPDATE versions SET state = 'retired' WHERE kb_id = ?", (kb_id,))
            return connection.execute(
                "DELETE FROM passages WHERE id IN (SELECT id FROM passages WHERE kb_id = ? LIMIT ?)", (kb_id, most)
            ).rowcount

    def keep_fusion(self, kb_id: int, fusion: str) -> None:
        """Keep the fitted weights of its channels; "" forgets them. Searches take them from then on."""
        with self.database.writing() as connection:
            connection.execute("UPDATE knowledge_bases SET fusion = ? WHERE id = ?", (fusion, kb_id))

    def put_documents(
        self,
        kb_id: int,
        documents: Iterable[Document],
        *,
        prune: bool = False,
        keep: Collection[str] = (),
        most_points: int | None = None,
    ) -> Change:
        """Add documents, or replace those of the same name; the unchanged are left as they are. Passages that a
        replaced document still holds keep their row, their vector and their questions. `prune`: documents neither given
        nor named in `keep` are deleted. Searches see what is replaced or pruned until the index holds what replaces it.
        `most_points`: passages and questions that all knowledge bases of the tenant may hold together.

        Raises:
            IngestError: a document or a passage key is given twice, or a key belongs to another document.
            LimitReached: nothing was written.
        """
        # Read to the end, and its tokens counted, before the catalogue is held for writing.
        documents = list(documents)
        self.tokenize_again(kb_id)
        tokens = self._tokens_of_new(kb_id, documents)
        with self.database.writing() as connection:
            change = DocumentWriter(connection, kb_id, tokens).put(documents, prune, keep)
            if most_points is not None and (change.added or change.replaced):
                check_points(connection, kb_id, most_points)
            return change

    def delete_document(self, kb_id: int, name: str) -> Change:
        """Delete a document: no search finds it from now on. `deleted` is 0 when there is none of that name."""
        with self.database.writing() as connection:
            return DocumentWriter(connection, kb_id).delete(name)

    def drop_superseded(self, is_wanted: Callable[[list[str]], bool]) -> int:
        """Drop what replaced documents held (key, document, content), where `is_wanted` says so, before the index has
        caught up; return how many rows. A search whose index still holds such a passage leaves it out."""
        with self.database.writing() as connection:
            rows = connection.execute("SELECT rowid, key, document, content FROM superseded").fetchall()
            gone = [(row[0],) for row in rows if is_wanted([text for text in row[1:] if text])]
            connection.executemany("DELETE FROM superseded WHERE rowid = ?", gone)
        return len(gone)

    def documents(self, kb_id: int, after: str = "", limit: int = 100) -> list[DocumentRow]:
        """Return the documents by name; a page begins after the name `after`."""
        rows = self.database.connection.execute(
            "SELECT d.name, (SELECT count(*) FROM passages p WHERE p.document_id = d.id), d.content_hash, d.updated_at "
            "FROM documents d WHERE d.kb_id = ? AND d.name > ? ORDER BY d.name LIMIT ?",
            (kb_id, after, limit),
        )
        return [DocumentRow(*row) for row in rows]

    def document(self, kb_id: int, name: str) -> list[StoredPassage]:
        """Return a document's passages in order; none when there is no such document."""
        return self._passages("d.kb_id = ? AND d.name = ? ORDER BY p.place", kb_id, kb_id, name)

    def passages(self, kb_id: int, after_id: int = 0, limit: int = 1000) -> list[StoredPassage]:
        return self._passages("p.id > ? ORDER BY p.id LIMIT ?", kb_id, after_id, limit)

    def passage(self, kb_id: int, key: str) -> StoredPassage | None:
        found = self._passages("p.kb_id = ? AND p.key = ?", kb_id, kb_id, key)
        return found[0] if found else None

    def passages_without_questions(self, kb_id: int, limit: int, after_id: int = 0) -> list[StoredPassage]:
        """Return the passages for which no model has written questions yet."""
        return self._passages("p.asked = 0 AND p.id > ? ORDER BY p.id LIMIT ?", kb_id, after_id, limit)

    def questions(self, kb_id: int, passage_id: int) -> list[Question]:
        rows = self.database.connection.execute(
            "SELECT id, passage_id, text, source, score, kept FROM questions WHERE kb_id = ? AND passage_id = ? "
            "ORDER BY id",
            (kb_id, passage_id),
        )
        return [
            Question(row_id, passage, text, source, score, bool(kept))
            for row_id, passage, text, source, score, kept in rows
        ]

    def question_texts(self, kb_id: int, question_ids: Sequence[int]) -> dict[int, str]:
        rows = self.database.connection.execute(
            "SELECT id, text FROM questions WHERE kb_id = ? AND id IN (SELECT value FROM json_each(?))",
            (kb_id, json.dumps(list(question_ids))),
        )
        return dict(rows.fetchall())

    def put_questions(self, kb_id: int, passage_id: int, questions: Sequence[tuple[str, float]]) -> None:
        """Replace the model's questions of a passage by these (text, score), kept until `keep_questions` judges. The
        passage counts as asked about even when there is none. Nothing happens when the passage is gone."""
        with self.database.writing() as connection:
            DocumentWriter(connection, kb_id).put_model_questions(passage_id, questions)

    def keep_questions(self, kb_id: int, threshold: float) -> int:
        """Index those of the model's questions that score at least `threshold`; return how many they are."""
        with self.database.writing() as connection:
            return DocumentWriter(connection, kb_id).keep_questions(threshold)

    def changes(self, kb_id: int, after: int) -> Iterator[IndexKey]:
        """Yield what was written after that revision and is still there: passages, then questions, by row id."""
        rows = self.database.connection.execute(_LIVE_KEYS, {"kb": kb_id, "after": after})
        for row_id, is_question, text, revision, ids, counts in rows:
            stored = (
                None if ids is None else TokenCounts(np.frombuffer(ids, np.uint32), np.frombuffer(counts, np.uint16))
            )
            yield IndexKey(row_id, bool(is_question), text, revision, stored or count_tokens(text))

    def count_changes(self, kb_id: int, after: int) -> int:
        """Return how many rows `changes` and `removals` give."""
        row = self.database.connection.execute(
            "SELECT (SELECT count(*) FROM passages WHERE kb_id = ?1 AND revision > ?2) + "
            "(SELECT count(*) FROM questions WHERE kb_id = ?1 AND revision > ?2 AND kept) + "
            "(SELECT count(*) FROM removals WHERE kb_id = ?1 AND revision > ?2)",
            (kb_id, after),
        )
        return int(row.fetchone()[0])

    def index_keys(self, kb_id: int) -> Iterator[IndexKey]:
        """Yield everything that is there, in the order of `changes`."""
        return self.changes(kb_id, -1)

    def removals(self, kb_id: int, after: int, until: int) -> list[RowKey]:
        """Return what was removed after the one revision, up to the other, and has not come back."""
        rows = self.database.connection.execute(
            "SELECT row_id, is_question FROM removals r WHERE kb_id = ? AND revision > ? AND revision <= ? AND NOT "
            "(is_question AND EXISTS (SELECT 1 FROM questions q WHERE q.id = r.row_id AND q.kept))",
            (kb_id, after, until),
        )
        return [RowKey(row_id, bool(is_question)) for row_id, is_question in rows]

    def tokenizer_id(self, kb_id: int) -> str:
        """Return the tokenizer of the stored tokens; "" when there is no such knowledge base."""
        row = self.database.connection.execute(
            "SELECT tokenizer_id FROM knowledge_bases WHERE id = ?", (kb_id,)
        ).fetchone()
        return row[0] if row else ""

    def tokenize_again(self, kb_id: int) -> None:
        """Tokenise again what another tokenizer than this code's has tokenised."""
        if self.tokenizer_id(kb_id) in ("", TOKENIZER_ID):
            return
        rows = self.database.connection.execute("SELECT content FROM passages WHERE kb_id = ?", (kb_id,))
        tokens = {content: token_blobs(content) for (content,) in rows}
        with self.database.writing() as connection:
            writer = DocumentWriter(connection, kb_id, tokens)
            if not writer.tokenizer_is_current:  # else another process was quicker
                writer.replace_tokens()

    def mean_tokens(self, kb_id: int) -> float:
        """Return the mean number of a passage's tokens, at least 1."""
        row = self.database.connection.execute("SELECT avg(tokens) FROM passages WHERE kb_id = ?", (kb_id,)).fetchone()
        return max(1.0, row[0] or 0.0)

    def token_frequencies(self, kb_id: int) -> bytes:
        """Return `TokenStatistics` of all its passages."""
        rows = self.database.connection.execute("SELECT token_ids FROM passages WHERE kb_id = ?", (kb_id,))
        return TokenStatistics.count(np.frombuffer(row[0], np.uint32) for row in rows).to_bytes()

    def resolve(
        self, kb_id: int, rows: Sequence[tuple[int, bool]], applied: int | None = None
    ) -> dict[RowKey, StoredPassage]:
        """Return the passage behind each row, as of revision `applied` where documents were replaced since (None: as
        of now). What is gone or another knowledge base's is left out."""
        return resolve_rows(self.database.connection, kb_id, rows, applied)

    def close(self) -> None:
        self.database.close()

    def _tokens_of_new(self, kb_id: int, documents: Sequence[Document]) -> dict[str, TokenBlobs]:
        """Return the tokens of texts that are not stored yet in the documents given."""
        names = json.dumps([document.name for document in documents])
        hashes = dict(
            self.database.connection.execute(
                "SELECT name, content_hash FROM documents WHERE kb_id = ? AND name IN (SELECT value FROM json_each(?))",
                (kb_id, names),
            ).fetchall()
        )
        tokens: dict[str, TokenBlobs] = {}
        for document in documents:
            if document.name in hashes and hashes[document.name] == document.content_hash:
                continue
            stored = {row.content for row in self.document(kb_id, document.name)} if document.name in hashes else set()
            for passage in document.passages:
                if passage.content not in stored and passage.content not in tokens:
                    tokens[passage.content] = passage.tokens or token_blobs(passage.content)
        return tokens

    def _passages(self, condition: str, kb_id: int, *values: object) -> list[StoredPassage]:
        return read_passages(self.database.connection, condition, kb_id, *values)


@contextmanager
def stored_knowledge_base(folder: Path, tenant_id: str, name: str) -> Iterator[tuple[Catalogue, KnowledgeBase]]:
    """Open a stored knowledge base and its catalogue, which is closed afterwards.

    Raises:
        IngestError: `folder` is no data folder, or holds no such knowledge base.
    """
    if not (folder / FILE).is_file():
        raise IngestError(f"{folder}: holds no {FILE}")
    catalogue = Catalogue(folder)
    try:
        kb = catalogue.find_knowledge_base(tenant_id, name)
        if kb is None:
            raise IngestError(f"{folder}: tenant {tenant_id} has no knowledge base {name}")
        yield catalogue, kb
    finally:
        catalogue.close()
