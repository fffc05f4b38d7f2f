"""The versions of each knowledge base's index: which is being built, which is live, which may go."""

from __future__ import annotations

from rag.catalogue.database import Database, now
from rag.catalogue.records import IndexRecipe, Version

_COLUMNS = (
    "id, kb_id, state, embedder_id, dimension, tokenizer_id, engine_id, mean_length, embedder_state, statistics, "
    "built_revision, applied_revision, points, made_by, created_at, cleaned_revision, flushed_revision, mean_vector"
)
# A search of a version sees the knowledge base as of the revision applied to it: what it may still need stays.
_FORGET_SUPERSEDED = (
    "DELETE FROM superseded WHERE kb_id = ?1 AND removed <= "
    "(SELECT coalesce(min(applied_revision), 0) FROM versions WHERE kb_id = ?1)"
)


class Versions:
    """The part of the catalogue that knows of indexes, never what is in them."""

    def __init__(self, database: Database):
        self.database = database

    def begin_version(
        self,
        kb_id: int,
        recipe: IndexRecipe,
        embedder_state: bytes,
        statistics: bytes,
        built_revision: int,
        made_by: str,
    ) -> int:
        """Begin a version to be filled; return its id, which no version ever had or will have again."""
        with self.database.writing() as connection:
            row = connection.execute(
                "INSERT INTO versions (kb_id, state, embedder_id, dimension, tokenizer_id, engine_id, mean_length, "
                "embedder_state, statistics, built_revision, applied_revision, cleaned_revision, flushed_revision, "
                "made_by, created_at) VALUES (?, 'building', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    kb_id,
                    recipe.embedder_id,
                    recipe.dimension,
                    recipe.tokenizer_id,
                    recipe.engine_id,
                    recipe.mean_length,
                    embedder_state,
                    statistics,
                    *[built_revision] * 4,
                    made_by,
                    now(),
                ),
            )
            assert row.lastrowid is not None
            return row.lastrowid

    def keep_mean_vector(self, version_id: int, mean_vector: bytes) -> None:
        with self.database.writing() as connection:
            connection.execute("UPDATE versions SET mean_vector = ? WHERE id = ?", (mean_vector, version_id))

    def publish_version(self, version_id: int, points: int) -> None:
        """Make it the live one; every earlier one of its knowledge base, also one left half-built, is retired. One
        begun later has superseded it: then it is retired itself when that one is live."""
        with self.database.writing() as connection:
            (kb_id,) = connection.execute("SELECT kb_id FROM versions WHERE id = ?", (version_id,)).fetchone()
            live = connection.execute("SELECT live_version FROM knowledge_bases WHERE id = ?", (kb_id,)).fetchone()
            if live is None or (live[0] or 0) > version_id:  # the knowledge base was dropped, or a later build is live
                connection.execute("UPDATE versions SET state = 'retired' WHERE id = ?", (version_id,))
                return
            connection.execute(
                "UPDATE versions SET state = 'retired' WHERE kb_id = ? AND id < ? AND state != 'retired'",
                (kb_id, version_id),
            )
            connection.execute("UPDATE versions SET state = 'live', points = ? WHERE id = ?", (points, version_id))
            connection.execute("UPDATE knowledge_bases SET live_version = ? WHERE id = ?", (version_id, kb_id))
            connection.execute(
                "DELETE FROM removals WHERE kb_id = ? AND revision <= "
                "(SELECT min(min(cleaned_revision, flushed_revision)) FROM versions "
                "WHERE kb_id = ? AND state != 'retired')",
                (kb_id, kb_id),
            )

    def applied_revision(self, version_id: int) -> int | None:
        """Return the revision as of which the version is searched; None when it was forgotten."""
        row = self.database.connection.execute("SELECT applied_revision FROM versions WHERE id = ?", (version_id,))
        found = row.fetchone()
        return found[0] if found else None

    def mark_applied(self, version_id: int, revision: int) -> None:
        """Record that the version's vectors hold everything up to `revision`: from now on searches see it."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE versions SET applied_revision = max(applied_revision, ?) WHERE id = ?", (revision, version_id)
            )

    def mark_cleaned(self, version_id: int, kb_id: int, revision: int) -> None:
        """Record that the version's vectors hold nothing that was removed up to `revision`."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE versions SET cleaned_revision = max(cleaned_revision, ?) WHERE id = ?", (revision, version_id)
            )
            connection.execute(_FORGET_SUPERSEDED, (kb_id,))

    def mark_flushed(self, version_id: int, revision: int) -> None:
        """Record that what was applied and cleaned up to `revision` survives a crash."""
        with self.database.writing() as connection:
            connection.execute(
                "UPDATE versions SET flushed_revision = max(flushed_revision, ?) WHERE id = ?", (revision, version_id)
            )

    def version(self, version_id: int) -> Version:
        """
        Raises:
            KeyError: no such version.
        """
        row = self.database.connection.execute(f"SELECT {_COLUMNS} FROM versions WHERE id = ?", (version_id,))
        found = row.fetchone()
        if found is None:
            raise KeyError(version_id)
        return Version(
            id=found[0],
            kb_id=found[1],
            state=found[2],
            recipe=IndexRecipe(*found[3:8]),
            embedder_state=found[8],
            statistics=found[9],
            built_revision=found[10],
            applied_revision=found[11],
            points=found[12],
            made_by=found[13],
            created_at=found[14],
            cleaned_revision=found[15],
            flushed_revision=found[16],
            mean_vector=found[17],
        )

    def retired_versions(self) -> list[int]:
        rows = self.database.connection.execute("SELECT id FROM versions WHERE state = 'retired' ORDER BY id")
        return [row[0] for row in rows]

    def forget_version(self, version_id: int) -> None:
        """Forget a version, once its vectors are gone."""
        with self.database.writing() as connection:
            row = connection.execute("SELECT kb_id FROM versions WHERE id = ?", (version_id,)).fetchone()
            connection.execute("DELETE FROM versions WHERE id = ? AND state = 'retired'", (version_id,))
            if row:
                connection.execute(_FORGET_SUPERSEDED, row)
