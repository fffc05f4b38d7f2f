"""The ledger, and a service's data folder by the service's own command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from data_prep.forgetting.row_files import Findings
from guard.personal.wanted import Wanted
from reward.ledger.ledger_file import open_checked
from reward.records.files import BadInput

CATALOGUE = "catalogue.sqlite"
# Table → its key, and the columns that may hold a person's words. Of a call its cost stays, only its answer goes.
_TABLES = {"calls": ("id", ("value", "detail")), "passages": ("key", ("content",))}


def forget_ledger(path: Path, wanted: Wanted, *, remove: bool) -> Findings:
    """Look at every answer and passage of a ledger. A passage is deleted; of a call the answer is, while what it cost
    stays in the books: the same call is made again when it is asked for.

    Raises:
        BadInput: the file is damaged, or no ledger.
        sqlite3.Error: it is locked for too long.
    """
    findings = Findings()
    with closing(open_checked(path, "mode=rw" if remove else "mode=ro")) as db:
        db.execute("PRAGMA secure_delete = ON")  # freed pages are overwritten
        for table, (key, columns) in _TABLES.items():
            rows = db.execute(f"SELECT {key}, {', '.join(columns)} FROM {table}")
            keys = [(row[0],) for row in rows if wanted.is_in([_parsed(cell) for cell in row[1:]])]
            findings.found += len(keys)
            if keys and remove:
                db.execute("BEGIN IMMEDIATE")
                change = (
                    "DELETE FROM passages"
                    if table == "passages"
                    else ("UPDATE calls SET status = 'forgotten', detail = '', value = NULL")
                )
                db.executemany(f"{change} WHERE {key} = ?", keys)
                db.execute("COMMIT")
                findings.removed += len(keys)
        if findings.removed:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return findings


def _parsed(cell: str | None) -> object:
    try:
        return json.loads(cell or "null")
    except ValueError:
        return cell


def forget_catalogue(folder: Path, patterns: Sequence[str], ids: Sequence[str], *, remove: bool) -> dict[str, Findings]:
    """Let the service's own command look through its data folder; return what it says by table.

    Raises:
        BadInput: it fails.
    """
    command = [sys.executable, "-m", "rag.forget", "--index", str(folder)]
    # "--person=…": a pattern may begin with a dash.
    command += [f"--person={pattern}" for pattern in patterns] + [f"--id={one}" for one in ids]
    ended = subprocess.run([*command, *(["--yes"] if remove else [])], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BadInput(f"{folder}: {(ended.stderr.strip().splitlines() or ['rag.forget failed'])[-1]}")
    counts = json.loads(ended.stdout.splitlines()[-1])
    return {table: Findings(found, removed) for table, (found, removed) in counts.items()}
