"""How much a tenant or a knowledge base holds, and what it may hold."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence


class LimitReached(Exception):
    """One line: the tenant may not hold so much. Nothing was written."""


def check_points(connection: sqlite3.Connection, kb_id: int, most: int) -> None:
    """
    Raises:
        LimitReached: the knowledge bases of the tenant hold more passages and indexed questions than `most`.
    """
    (held,) = connection.execute(
        "SELECT sum(passages + questions) FROM knowledge_bases WHERE tenant_id = "
        "(SELECT tenant_id FROM knowledge_bases WHERE id = ?)",
        (kb_id,),
    ).fetchone()
    if held > most:
        raise LimitReached(f"the tenant may hold {most} passages and questions: this would make {held}")


def count_points(connection: sqlite3.Connection, kb_id: int, documents: Sequence[str]) -> int:
    """Return how many passages and indexed questions these documents hold."""
    passages, questions = connection.execute(
        "WITH held AS (SELECT p.id FROM documents d JOIN passages p ON p.document_id = d.id "
        "WHERE d.kb_id = ? AND d.name IN (SELECT value FROM json_each(?))) "
        "SELECT (SELECT count(*) FROM held), "
        "(SELECT count(*) FROM questions WHERE kept AND passage_id IN (SELECT id FROM held))",
        (kb_id, json.dumps(list(documents))),
    ).fetchone()
    return int(passages + questions)


def count_characters(connection: sqlite3.Connection, kb_id: int) -> int:
    """Return how many characters the passages and questions of a knowledge base hold."""
    (length,) = connection.execute(
        "SELECT (SELECT coalesce(sum(length(content)), 0) FROM passages WHERE kb_id = ?1) + "
        "(SELECT coalesce(sum(length(text)), 0) FROM questions WHERE kb_id = ?1)",
        (kb_id,),
    ).fetchone()
    return int(length)
