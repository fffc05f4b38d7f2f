"""Which passages are behind the rows that an index found, as of the revision that the index holds.

Writing a document and indexing it are two steps. Until the second is done searches see the first not at all: a
document that is replaced is found in its old version, from `superseded`, and what replaces it is left out. Documents
that replace nothing are seen as soon as they are indexed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np

from rag.catalogue.records import RowKey, StoredPassage

_NOW = 1 << 62  # a revision that no write reaches
_PASSAGE = (
    "SELECT p.id, p.key, d.name, p.content, p.token_ids FROM passages p JOIN documents d ON d.id = p.document_id "
    # The plus keeps the knowledge base's index out of it: ids and keys lead to their few rows at once.
    "WHERE +p.kb_id = ? AND "
)
_PASSAGES_AS_OF = "p.id IN (SELECT value FROM json_each(?)) AND NOT (p.revision > ? AND d.switched > ?)"
# The few that a search found, as one row: between rows SQLite gives Python's lock away, and gets it back after whatever
# else computes.
_FOUND_AS_OF = (
    f"SELECT json_group_array(json_array(id, key, name, content, hex(token_ids))) FROM ({_PASSAGE}{_PASSAGES_AS_OF})"
)
_QUESTIONS_AS_OF = (
    "SELECT q.id, q.passage_id FROM questions q JOIN passages p ON p.id = q.passage_id "
    "JOIN documents d ON d.id = p.document_id WHERE +q.kb_id = ? AND q.kept "
    "AND q.id IN (SELECT value FROM json_each(?)) AND NOT (q.revision > ? AND d.switched > ?)"
)
# Of several the one that was removed first is last.
_SUPERSEDED_AS_OF = (
    "SELECT row_id, passage_id, key, document, content, token_ids FROM superseded WHERE +kb_id = ? "
    "AND row_id IN (SELECT value FROM json_each(?)) AND is_question = ? AND removed > ? AND added <= ? "
    "ORDER BY removed DESC"
)


def read_passages(connection: sqlite3.Connection, condition: str, kb_id: int, *values: object) -> list[StoredPassage]:
    """Return the knowledge base's passages that fulfil an SQL condition on passages p and documents d."""
    rows = connection.execute(_PASSAGE + condition, (kb_id, *values))
    return [
        StoredPassage(row_id, key, document, content, np.frombuffer(tokens, np.uint32))
        for row_id, key, document, content, tokens in rows
    ]


def resolve_rows(
    connection: sqlite3.Connection, kb_id: int, rows: Sequence[tuple[int, bool]], applied: int | None
) -> dict[RowKey, StoredPassage]:
    """Return the passage behind each row that is there as of revision `applied` (None: as of now)."""
    revision = _NOW if applied is None else applied
    direct = [row_id for row_id, is_question in rows if not is_question]
    asked = json.dumps([row_id for row_id, is_question in rows if is_question])
    behind: dict[int, int] = {}
    if len(direct) < len(rows):
        behind = dict(connection.execute(_QUESTIONS_AS_OF, (kb_id, asked, revision, revision)).fetchall())
        former = connection.execute(_SUPERSEDED_AS_OF, (kb_id, asked, 1, revision, revision))
        behind |= {row_id: passage_id for row_id, passage_id, *_ in former}
    passages = _passages_as_of(connection, kb_id, {*direct, *behind.values()}, revision)
    found = {RowKey(row_id, False): passages[row_id] for row_id in direct if row_id in passages}
    return found | {RowKey(row_id, True): passages[i] for row_id, i in behind.items() if i in passages}


def _passages_as_of(
    connection: sqlite3.Connection, kb_id: int, ids: Iterable[int], revision: int
) -> dict[int, StoredPassage]:
    wanted = json.dumps(list(ids))
    [rows] = connection.execute(_FOUND_AS_OF, (kb_id, wanted, revision, revision)).fetchone()
    found = {
        row_id: StoredPassage(row_id, key, document, content, np.frombuffer(bytes.fromhex(tokens), np.uint32))
        for row_id, key, document, content, tokens in json.loads(rows)
    }
    for row_id, _, key, document, content, tokens in connection.execute(
        _SUPERSEDED_AS_OF, (kb_id, wanted, 0, revision, revision)
    ):
        found[row_id] = StoredPassage(row_id, key, document, content, np.frombuffer(tokens, np.uint32))
    return found
