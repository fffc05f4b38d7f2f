"""Write documents into the catalogue within one transaction, touching only what differs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from rag.catalogue.database import now
from rag.catalogue.records import Change
from rag.documents.records import Document, IngestError, Passage
from rag.documents.token_blobs import TokenBlobs, token_blobs
from rag.documents.tokenizer import TOKENIZER_ID


class DocumentWriter:
    """One write to one knowledge base: everything it touches gets the next revision.

    `tokens`: of texts that may be new, counted before the catalogue is held for writing.
    """

    def __init__(self, connection: sqlite3.Connection, kb_id: int, tokens: Mapping[str, TokenBlobs] | None = None):
        self._connection = connection
        self._kb = kb_id
        self._tokens = tokens or {}
        found = connection.execute(
            "SELECT revision, tokenizer_id FROM knowledge_bases WHERE id = ?", (kb_id,)
        ).fetchone()
        if found is None:
            raise IngestError("the knowledge base was deleted")
        self._revision: int = found[0] + 1
        self.tokenizer_is_current: bool = found[1] == TOKENIZER_ID

    def put(self, documents: Sequence[Document], prune: bool, keep: Collection[str] = ()) -> Change:
        # What is stored of these documents, and with `prune` of all others too.
        names = json.dumps([document.name for document in documents])
        known = {
            name: (document_id, content_hash)
            for document_id, name, content_hash in self._connection.execute(
                "SELECT id, name, content_hash FROM documents WHERE kb_id = ?1 AND (?2 OR name IN "
                "(SELECT value FROM json_each(?3)))",
                (self._kb, prune, names),
            )
        }
        # A content hash tells unchanged documents, which cost nothing, from those to write.
        given: set[str] = set()
        added = replaced = unchanged = 0
        changed: list[tuple[int, Document]] = []
        for document in documents:
            if document.name in given:
                raise IngestError(f"{document.name}: given twice")
            given.add(document.name)
            content_hash = document.content_hash
            if document.name not in known:
                row = self._connection.execute(
                    "INSERT INTO documents (kb_id, name, content_hash, updated_at) VALUES (?, ?, ?, ?)",
                    (self._kb, document.name, content_hash, now()),
                )
                assert row.lastrowid is not None
                changed.append((row.lastrowid, document))
                added += 1
            elif known[document.name][1] != content_hash:
                self._connection.execute(
                    "UPDATE documents SET content_hash = ?, updated_at = ? WHERE id = ?",
                    (content_hash, now(), known[document.name][0]),
                )
                changed.append((known[document.name][0], document))
                replaced += 1
            else:
                unchanged += 1
        gone = known.keys() - given - set(keep) if prune else set()
        deleted = len(gone)
        # What takes the place of something is searched when all of it is indexed, and what it replaces until then.
        if replaced or deleted:
            ids = json.dumps([document_id for document_id, _ in changed])
            self._connection.execute(
                "UPDATE documents SET switched = ? WHERE id IN (SELECT value FROM json_each(?))", (self._revision, ids)
            )
        # Removals come before the passages: a passage may keep its key and move to another document.
        for name in gone:
            self._remove_document(known[name][0], superseded=True)
        for document_id, document in changed:
            try:
                self._put_passages(document_id, document.passages)
            except sqlite3.IntegrityError:
                raise IngestError(f"{document.name}: holds the key of another passage") from None
        return self._finish(added, replaced, unchanged, deleted)

    def delete(self, name: str) -> Change:
        found = self._connection.execute(
            "SELECT id FROM documents WHERE kb_id = ? AND name = ?", (self._kb, name)
        ).fetchone()
        if found:
            self._remove_document(found[0])
            self._connection.execute("DELETE FROM superseded WHERE kb_id = ? AND document = ?", (self._kb, name))
        return self._finish(0, 0, 0, 1 if found else 0)

    def put_model_questions(self, passage_id: int, questions: Sequence[tuple[str, float]]) -> None:
        there = self._connection.execute(
            "SELECT 1 FROM passages WHERE kb_id = ? AND id = ?", (self._kb, passage_id)
        ).fetchone()
        if there is None:
            return
        self._remove_questions(passage_id, "model")
        self._connection.executemany(
            "INSERT INTO questions (kb_id, passage_id, text, source, score, kept, revision) "
            "VALUES (?, ?, ?, 'model', ?, 1, ?)",
            [(self._kb, passage_id, text, score, self._revision) for text, score in questions],
        )
        self._connection.execute("UPDATE passages SET asked = 1 WHERE id = ?", (passage_id,))
        self._finish(0, 0, 0, 0, touched=True)

    def keep_questions(self, threshold: float) -> int:
        of_model = "kb_id = ? AND source = 'model'"
        self._connection.execute(
            f"INSERT INTO removals SELECT kb_id, id, 1, ? FROM questions WHERE {of_model} AND kept AND score < ?",
            (self._revision, self._kb, threshold),
        )
        changed = self._connection.execute(
            f"UPDATE questions SET kept = score >= ?, revision = ? WHERE {of_model} AND kept != (score >= ?)",
            (threshold, self._revision, self._kb, threshold),
        ).rowcount
        self._finish(0, 0, 0, 0, touched=changed > 0)
        count = self._connection.execute(f"SELECT count(*) FROM questions WHERE {of_model} AND kept", (self._kb,))
        return int(count.fetchone()[0])

    def _put_passages(self, document_id: int, passages: Sequence[Passage]) -> None:
        """Write the document's passages; rows whose text is still in it stay, under their new key."""
        standing: dict[str, list[int]] = {}
        keys: dict[int, str] = {}
        for row_id, content, key in self._connection.execute(
            "SELECT id, content, key FROM passages WHERE document_id = ? ORDER BY id DESC", (document_id,)
        ):
            standing.setdefault(content, []).append(row_id)
            keys[row_id] = key
        placed: list[tuple[int, Passage]] = []
        for passage in passages:
            same = standing.get(passage.content)
            placed.append((same.pop() if same else 0, passage))
        for row_id in (row_id for rows in standing.values() for row_id in rows):
            self._remove_passage(row_id, superseded=True)
        for row_id, passage in placed:
            if row_id and keys[row_id] != passage.key:
                self._supersede(row_id)
        # Keys are unique: old ones go before new ones come, so that none collides.
        self._connection.execute("UPDATE passages SET key = NULL WHERE document_id = ?", (document_id,))
        for place, (row_id, passage) in enumerate(placed):
            if row_id:
                self._connection.execute(
                    "UPDATE passages SET key = ?, place = ? WHERE id = ?", (passage.key, place, row_id)
                )
            else:
                row_id = self._insert_passage(document_id, passage, place)
            self._put_human_questions(row_id, passage.questions)

    def _insert_passage(self, document_id: int, passage: Passage, place: int) -> int:
        row = self._connection.execute(
            "INSERT INTO passages (kb_id, document_id, key, content, token_ids, token_counts, tokens, place, revision) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._kb,
                document_id,
                passage.key,
                passage.content,
                *self._tokens_of(passage.content),
                place,
                self._revision,
            ),
        )
        assert row.lastrowid is not None
        return row.lastrowid

    def replace_tokens(self) -> None:
        """Replace what other code than this has tokenised."""
        rows = self._connection.execute("SELECT id, content FROM passages WHERE kb_id = ?", (self._kb,)).fetchall()
        self._connection.executemany(
            "UPDATE passages SET token_ids = ?, token_counts = ?, tokens = ? WHERE id = ?",
            ((*self._tokens_of(content), row_id) for row_id, content in rows),
        )
        self._connection.execute("UPDATE knowledge_bases SET tokenizer_id = ? WHERE id = ?", (TOKENIZER_ID, self._kb))

    def _tokens_of(self, content: str) -> TokenBlobs:
        return self._tokens.get(content) or token_blobs(content)  # written between the count and this: counted now

    def _put_human_questions(self, passage_id: int, questions: Sequence[str]) -> None:
        standing = [
            row[0]
            for row in self._connection.execute(
                "SELECT text FROM questions WHERE passage_id = ? AND source = 'human' ORDER BY id", (passage_id,)
            )
        ]
        if standing == list(questions):
            return
        self._remove_questions(passage_id, "human", superseded=True)
        self._connection.executemany(
            "INSERT INTO questions (kb_id, passage_id, text, source, score, kept, revision) "
            "VALUES (?, ?, ?, 'human', NULL, 1, ?)",
            [(self._kb, passage_id, text, self._revision) for text in questions],
        )

    def _remove_document(self, document_id: int, superseded: bool = False) -> None:
        rows = self._connection.execute("SELECT id FROM passages WHERE document_id = ?", (document_id,)).fetchall()
        for (passage_id,) in rows:
            self._remove_passage(passage_id, superseded)
        self._connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))

    def _remove_passage(self, passage_id: int, superseded: bool) -> None:
        for source in ("human", "model"):
            self._remove_questions(passage_id, source, superseded)
        if superseded:
            self._supersede(passage_id)
        self._connection.execute("INSERT INTO removals VALUES (?, ?, 0, ?)", (self._kb, passage_id, self._revision))
        self._connection.execute("DELETE FROM passages WHERE id = ?", (passage_id,))

    def _remove_questions(self, passage_id: int, source: str, superseded: bool = False) -> None:
        if superseded:
            self._connection.execute(
                "INSERT INTO superseded (kb_id, row_id, is_question, added, removed, document, passage_id) "
                "SELECT q.kb_id, q.id, 1, q.revision, ?, d.name, p.id FROM questions q JOIN passages p "
                "ON p.id = q.passage_id JOIN documents d ON d.id = p.document_id "
                "WHERE q.passage_id = ? AND q.source = ? AND q.kept",
                (self._revision, passage_id, source),
            )
        self._connection.execute(
            "INSERT INTO removals SELECT kb_id, id, 1, ? FROM questions WHERE passage_id = ? AND source = ? AND kept",
            (self._revision, passage_id, source),
        )
        self._connection.execute("DELETE FROM questions WHERE passage_id = ? AND source = ?", (passage_id, source))

    def _supersede(self, passage_id: int) -> None:
        """Keep the passage as it is, for searches of an index that does not hold this write yet."""
        self._connection.execute(
            "INSERT INTO superseded (kb_id, row_id, is_question, added, removed, document, passage_id, key, content, "
            "token_ids) SELECT p.kb_id, p.id, 0, p.revision, ?, d.name, p.id, p.key, p.content, p.token_ids "
            "FROM passages p JOIN documents d ON d.id = p.document_id WHERE p.id = ?",
            (self._revision, passage_id),
        )

    def _finish(self, added: int, replaced: int, unchanged: int, deleted: int, *, touched: bool = False) -> Change:
        if not (added or replaced or deleted or touched):
            return Change(added, replaced, unchanged, deleted, self._revision - 1)
        self._connection.execute("UPDATE knowledge_bases SET revision = ? WHERE id = ?", (self._revision, self._kb))
        return Change(added, replaced, unchanged, deleted, self._revision)
