"""The ledger's SQLite file: its schema, and how it is made, opened and checked. A damaged file is never replaced."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from guard.private_files import keep_private, make_folder
from reward.records.files import BadInput

BUSY_SECONDS = 10.0  # how long a file that another process has locked is waited for

_APPLICATION = 0x52574C47
_VERSION = 2
_PAGE_BYTES = 4096
_HEADER_BYTES = 512
_PASSAGES = """
CREATE TABLE passages (
    key TEXT PRIMARY KEY,         -- reward.records.outcome.passage_key of the content
    content TEXT NOT NULL
) STRICT;
"""
_SCHEMA = f"""
PRAGMA page_size = {_PAGE_BYTES};
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    time TEXT NOT NULL,           -- UTC, ISO 8601
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,            -- reward.records.call.content_key
    service TEXT NOT NULL,        -- model@version or base URL
    tenant TEXT NOT NULL,
    input_tokens REAL NOT NULL,   -- of a shared call: this answer's share
    cached_tokens REAL NOT NULL,  -- part of input_tokens
    output_tokens REAL NOT NULL,
    cny REAL NOT NULL,
    usd REAL NOT NULL,
    latency REAL NOT NULL,        -- seconds, without queueing and back-off
    queued REAL NOT NULL,         -- seconds
    attempts INTEGER NOT NULL,
    shared_by INTEGER NOT NULL,   -- answers that the one call produced
    estimated INTEGER NOT NULL,   -- 1: the service reported no usable cost, the reserved bound was booked
    status TEXT NOT NULL,         -- ok, a FailureKind, or forgotten (data_prep.forget)
    detail TEXT NOT NULL,         -- why it failed
    value TEXT                    -- JSON of the answer; NULL unless ok
) STRICT;
CREATE INDEX answers ON calls (key) WHERE status = 'ok';
{_PASSAGES}
"""
# Version 1 called the attempts tries, marked no estimates and kept no passages.
_FROM_VERSION_1 = (
    "ALTER TABLE calls RENAME COLUMN tries TO attempts",
    "ALTER TABLE calls ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0",
    _PASSAGES,
    f"PRAGMA user_version = {_VERSION}",
)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Connect to a ledger file for reading, whether or not a run is writing to it. Its tables: see `_SCHEMA`.

    Raises:
        BadInput: there is no such file, it is damaged, or it is no ledger that this program reads.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    # A log beside the file must be readable, and SQLite wants to make one where there is none.
    return open_checked(path, "mode=ro" if os.access(path.absolute().parent, os.W_OK) else "mode=ro&immutable=1")


def read_passage(db: sqlite3.Connection, path: Path, key: str) -> str | None:
    """Return the content of a retrieved passage by its key, None where the ledger at `path` does not hold it.

    Raises:
        BadInput: the file cannot be read.
    """
    try:
        row = db.execute("SELECT content FROM passages WHERE key = ?", (key,)).fetchone()
    except sqlite3.Error as error:
        raise BadInput(explain(path, "cannot be read", error)) from None
    return row[0] if row else None


def make_if_missing(path: Path) -> None:
    """Make the file beside its place, then link it there: it is whole or absent, whatever is killed meanwhile.

    Raises:
        BadInput: it cannot be made, or was taken away from beside its write-ahead log.
    """
    orphaned = _log_bytes(path)  # looked at first: a log only appears once its file is there
    if path.exists():
        return
    if orphaned:
        raise BadInput(f"{path}: is missing while {path.name}-wal is there: restore the file, or move its -wal away")
    try:
        make_folder(path.parent)
        with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.", suffix=".partial") as folder:
            whole = Path(folder, path.name)
            os.close(keep_private(str(whole), os.O_WRONLY | os.O_CREAT))  # its -wal and -shm take its mode
            with closing(sqlite3.connect(whole)) as db:
                db.executescript(_SCHEMA)
            with suppress(FileExistsError):  # another process was first
                os.link(whole, path)
    except (OSError, sqlite3.Error) as error:
        raise BadInput(f"{path}: cannot be made: {getattr(error, 'strerror', None) or error}") from None


def open_checked(path: Path, mode: str) -> sqlite3.Connection:
    """Connect to a ledger file, once it is checked from end to end (seconds per gigabyte); bring version 1 up to date.

    Args:
        mode: query of an SQLite URI, `mode=rw` or `mode=ro`.

    Raises:
        BadInput: the file cannot be opened, is damaged, or is no ledger that this program reads.
    """
    try:
        if path.is_file() and path.stat().st_size < _HEADER_BYTES:  # SQLite would take it for a new file
            raise BadInput(explain(path, "cannot be opened", sqlite3.DatabaseError("the file is cut short")))
        settled = not _log_bytes(path)
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?{mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # every statement its own transaction
            check_same_thread=False,
        )
    except (OSError, sqlite3.Error) as error:
        raise BadInput(explain(path, "cannot be opened", error)) from None
    try:
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if application != _APPLICATION:
            raise BadInput(f"{path}: is an SQLite file, but no ledger of calls")
        if version not in (1, _VERSION):
            raise BadInput(f"{path}: has ledger version {version}, this program reads and writes version {_VERSION}")
        # SQLite pads a page cut short with zeros and reads on. With a log beside it, the log holds the whole page.
        if settled and path.stat().st_size % _PAGE_BYTES:
            raise sqlite3.DatabaseError("the last page is cut short")
        finding = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise sqlite3.DatabaseError(finding)
        if version == 1:
            _bring_up(path)
    except (OSError, sqlite3.Error, BadInput) as error:
        db.close()
        raise error if isinstance(error, BadInput) else BadInput(explain(path, "cannot be opened", error)) from None
    return db


def _bring_up(path: Path) -> None:
    """Bring a file of version 1 to this version, in one transaction.

    Raises:
        sqlite3.Error: it is locked, damaged, or cannot be written.
    """
    # A reader's connection cannot write: the change has one of its own.
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        # Another process may have been first.
        if writer.execute("PRAGMA user_version").fetchone()[0] == 1:
            for statement in _FROM_VERSION_1:
                writer.execute(statement)
        writer.execute("COMMIT")


def _log_bytes(path: Path) -> int:
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


def explain(path: Path, what: str, error: Exception) -> str:
    """Say in one line that `what` could not be done, or, where the file is damaged, what to do about that."""
    reason = " ".join(str(error).split())
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if isinstance(error, OSError) or code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{path}: {what}: {reason}"
    return (
        f"{path}: the ledger is damaged ({reason}): restore a copy, or move it and its -wal away to begin a new one "
        "(the calls it recorded will then be made and paid for again)"
    )
