"""The SQLite file of a data folder: its tables, a connection for each thread, transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rag.documents.records import IngestError

FILE = "catalogue.sqlite"
LAYOUT = 4
BUSY_SECONDS = 60.0
_SOUND_WAL = (3, 51, 3)

# What a replacement took away, for searches of an index that does not hold the replacement yet: rows as they were from
# revision `added` until revision `removed`. A passage that only changed its key is in `passages` and here.
_SUPERSEDED = """
CREATE TABLE superseded (
    kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE, row_id INTEGER NOT NULL,
    is_question INTEGER NOT NULL, added INTEGER NOT NULL, removed INTEGER NOT NULL, document TEXT NOT NULL,
    passage_id INTEGER NOT NULL, key TEXT, content TEXT, token_ids BLOB, PRIMARY KEY (row_id, is_question, removed)
);
CREATE INDEX superseded_of_document ON superseded (kb_id, document)
"""
_RERANKERS = """
CREATE TABLE rerankers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL, address TEXT NOT NULL, model_id TEXT NOT NULL,
    canary TEXT NOT NULL, set_at TEXT NOT NULL
)
"""
_TABLES = f"""
CREATE TABLE knowledge_bases (
    id INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0, live_version INTEGER, tokenizer_id TEXT NOT NULL,
    documents INTEGER NOT NULL DEFAULT 0, passages INTEGER NOT NULL DEFAULT 0, questions INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL, fusion TEXT NOT NULL DEFAULT '', UNIQUE (tenant_id, name)
);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE,
    name TEXT NOT NULL, content_hash TEXT NOT NULL, updated_at TEXT NOT NULL, switched INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kb_id, name)
);
-- AUTOINCREMENT: ids are never used again, so that a stale vector can never point to another passage.
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE,
    document_id INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE, key TEXT, content TEXT NOT NULL,
    token_ids BLOB NOT NULL, token_counts BLOB NOT NULL, tokens INTEGER NOT NULL, place INTEGER NOT NULL,
    revision INTEGER NOT NULL, asked INTEGER NOT NULL DEFAULT 0, UNIQUE (kb_id, key)
);
CREATE INDEX passages_of_document ON passages (document_id);
CREATE INDEX passages_by_revision ON passages (kb_id, revision);
CREATE TABLE questions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE,
    passage_id INTEGER NOT NULL REFERENCES passages ON DELETE CASCADE, text TEXT NOT NULL, source TEXT NOT NULL,
    score REAL, kept INTEGER NOT NULL, revision INTEGER NOT NULL
);
CREATE INDEX questions_of_passage ON questions (passage_id);
CREATE INDEX questions_by_revision ON questions (kb_id, revision);
CREATE TABLE removals (
    kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE, row_id INTEGER NOT NULL,
    is_question INTEGER NOT NULL, revision INTEGER NOT NULL
);
CREATE INDEX removals_by_revision ON removals (kb_id, revision);
{_SUPERSEDED};
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kb_id INTEGER NOT NULL, state TEXT NOT NULL,
    embedder_id TEXT NOT NULL, dimension INTEGER NOT NULL, tokenizer_id TEXT NOT NULL, engine_id TEXT NOT NULL,
    mean_length REAL NOT NULL, embedder_state BLOB NOT NULL, statistics BLOB NOT NULL, built_revision INTEGER NOT NULL,
    applied_revision INTEGER NOT NULL, points INTEGER NOT NULL DEFAULT 0, made_by TEXT NOT NULL,
    created_at TEXT NOT NULL, cleaned_revision INTEGER NOT NULL DEFAULT 0, mean_vector BLOB NOT NULL DEFAULT x'',
    flushed_revision INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE access_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key_hash BLOB NOT NULL UNIQUE, tenant_id TEXT NOT NULL, scope TEXT NOT NULL,
    note TEXT NOT NULL, created_at TEXT NOT NULL, revoked_at TEXT
);
{_RERANKERS};
CREATE TABLE clicks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kb_id INTEGER NOT NULL REFERENCES knowledge_bases ON DELETE CASCADE,
    at TEXT NOT NULL, query TEXT NOT NULL, rewritten_query TEXT NOT NULL, passage_key TEXT NOT NULL,
    clicked INTEGER NOT NULL, position INTEGER, request_id TEXT NOT NULL
);
CREATE INDEX clicks_by_time ON clicks (kb_id, at);
"""
# Layout → what makes the next one of it.
_UPGRADES = {
    1: [
        "ALTER TABLE documents ADD COLUMN switched INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE versions ADD COLUMN cleaned_revision INTEGER NOT NULL DEFAULT 0",
        "UPDATE versions SET cleaned_revision = applied_revision",
        *_SUPERSEDED.split(";"),
    ],
    2: [
        "ALTER TABLE knowledge_bases ADD COLUMN fusion TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE versions ADD COLUMN mean_vector BLOB NOT NULL DEFAULT x''",
        _RERANKERS,
    ],
    3: [
        "ALTER TABLE versions ADD COLUMN flushed_revision INTEGER NOT NULL DEFAULT 0",
        "UPDATE versions SET flushed_revision = min(applied_revision, cleaned_revision)",
    ],
}
# Counting rows at every write would cost more than the write.
_COUNTERS = [
    f"""CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN
        UPDATE knowledge_bases SET {table} = {table} {change} WHERE id = {row}.kb_id; END"""
    for table, event, row, change in (
        ("documents", "INSERT", "NEW", "+ 1"),
        ("documents", "DELETE", "OLD", "- 1"),
        ("passages", "INSERT", "NEW", "+ 1"),
        ("passages", "DELETE", "OLD", "- 1"),
        ("questions", "INSERT", "NEW", "+ NEW.kept"),
        ("questions", "DELETE", "OLD", "- OLD.kept"),
        ("questions", "UPDATE", "NEW", "+ NEW.kept - OLD.kept"),
    )
]


def old_sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> str:
    """Say what this SQLite may lose; "" when it is new enough (https://sqlite.org/wal.html, the WAL-reset bug)."""
    if version >= _SOUND_WAL:
        return ""
    here, sound = (".".join(map(str, one)) for one in (version, _SOUND_WAL))
    return (
        f"SQLite {here} is older than {sound}: it can lose a write when two connections write and checkpoint at the "
        "same moment; keep copies of the data folder"
    )


def now() -> str:
    """Return the time in UTC, ISO 8601, to the microsecond, so that texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Database:
    """Safe for threads and processes. What `writing` committed survives a crash of the machine."""

    def __init__(self, folder: Path):
        """Open `folder`/catalogue.sqlite; creates folder and file when they are missing.

        Raises:
            IngestError: the file is damaged, no SQLite file, or of another layout.
        """
        self._path = folder / FILE
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Its owner's alone; -wal and -shm take its mode.
        # Not an open of a file that is there: its close would give up the locks of this process's other connections.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            self._create()
        except sqlite3.DatabaseError as error:
            raise IngestError(f"{self._path}: not usable ({error})") from None

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -8192"):
                connection.execute(f"PRAGMA {pragma}")
            self._local.connection = connection
            self._open.append(connection)
        return connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction, the only one that writes: it is committed at the end, taken back on any exception."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._local = threading.local()

    def _create(self) -> None:
        layout = self._layout()
        if layout == 0:
            with self.writing() as connection:
                if self._layout() == 0:  # else another process was quicker
                    for statement in (*_TABLES.split(";"), *_COUNTERS):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {LAYOUT}")
        elif layout in _UPGRADES:
            with self.writing() as connection:
                for older in range(self._layout(), LAYOUT):  # none where another process was quicker
                    for statement in _UPGRADES[older]:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
        elif layout != LAYOUT:
            raise IngestError(f"{self._path}: layout {layout}, but this is {LAYOUT}: build the index again elsewhere")

    def _layout(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])
