"""What people thought of hits: clicked (or thumbs up), or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import now
from rag.catalogue.holdings import LimitReached


@dataclass(frozen=True, slots=True)
class Click:
    """`position` in its list from 1; `at`: UTC, ISO 8601, set when it is recorded."""

    kb_id: int
    query: str
    rewritten_query: str
    passage_key: str
    clicked: bool
    position: int | None = None
    request_id: str = ""
    at: str = ""


class Clicks:
    def __init__(self, catalogue: Catalogue):
        self._database = catalogue.database

    def record(self, click: Click, most: int | None = None) -> None:
        """Store a click. `most`: how many its knowledge base may hold.

        Raises:
            LimitReached: it holds as many; nothing was stored.
        """
        with self._database.writing() as connection:
            count = "SELECT count(*) FROM clicks WHERE kb_id = ?"
            if most is not None and connection.execute(count, (click.kb_id,)).fetchone()[0] >= most:
                raise LimitReached(f"the knowledge base holds {most} clicks, as many as it may")
            connection.execute(
                "INSERT INTO clicks (kb_id, at, query, rewritten_query, passage_key, clicked, position, request_id) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    click.kb_id,
                    click.at or now(),
                    click.query,
                    click.rewritten_query,
                    click.passage_key,
                    click.clicked,
                    click.position,
                    click.request_id,
                ),
            )

    def texts(self, kb_id: int) -> list[tuple[int, list[str]]]:
        """Return the id and the texts of every click of one knowledge base."""
        rows = self._database.connection.execute(
            "SELECT id, query, rewritten_query, passage_key, request_id FROM clicks WHERE kb_id = ? ORDER BY id",
            (kb_id,),
        )
        return [(row_id, list(texts)) for row_id, *texts in rows]

    def delete(self, ids: Sequence[int]) -> int:
        """Delete clicks by their ids; return how many there were."""
        with self._database.writing() as connection:
            return connection.executemany("DELETE FROM clicks WHERE id = ?", [(one,) for one in ids]).rowcount

    def read(self, kb_id: int, since: str = "") -> Iterator[Click]:
        """Yield the clicks of one knowledge base, the oldest first, from `since` (a UTC time in ISO 8601) on."""
        rows = self._database.connection.execute(
            "SELECT kb_id, query, rewritten_query, passage_key, clicked, position, request_id, at FROM clicks "
            "WHERE kb_id = ? AND at >= ? ORDER BY at, id",
            (kb_id, since),
        )
        return (
            Click(kb, query, rewritten, key, bool(clicked), position, request_id, at)
            for kb, query, rewritten, key, clicked, position, request_id, at in rows
        )
