"""What calls have taken, read back from the ledger: answers of an earlier run have their costs there too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from reward.ledger.ledger_file import open_to_read
from reward.records.call import CallKind


class CallUse(NamedTuple):
    """One answered call, all its attempts together. `estimated`: the service reported no usable token counts, and the
    most that it can have used was booked."""

    seconds: float
    input_tokens: float
    output_tokens: float
    usd: float
    estimated: bool


def read_uses(ledger: Path, keys: Iterable[str]) -> dict[str, CallUse]:
    """Return key -> what its answer took, for the answered ones."""
    if not ledger.is_file():
        return {}
    with closing(open_to_read(ledger)) as db:
        rows = db.execute(
            """SELECT key, latency, input_tokens, output_tokens, usd, estimated FROM calls
               WHERE status = 'ok' AND key IN (SELECT value FROM json_each(?)) ORDER BY id DESC""",
            (json.dumps(sorted(set(keys))),),
        ).fetchall()
    return {
        key: CallUse(seconds, read, written, usd, bool(bound)) for key, seconds, read, written, usd, bound in rows
    }  # of several the first


def count_answers(ledger: Path, run_id: str, kind: CallKind, service: str) -> int:
    """Count the answers of a service that a run has in the ledger."""
    if not ledger.is_file():
        return 0
    query = "SELECT count(DISTINCT key) FROM calls WHERE status = 'ok' AND run_id = ? AND kind = ? AND service = ?"
    with closing(open_to_read(ledger)) as db:
        return int(db.execute(query, (run_id, kind.value, service)).fetchone()[0])


def read_spent(ledger: Path, run_id: str, kind: CallKind) -> dict[str, float]:
    """Return what a run's calls of a kind have taken so far, failed ones included: `calls`, tokens and `usd`."""
    query = """SELECT total(1.0 * attempts / shared_by), total(input_tokens), total(output_tokens), total(usd)
        FROM calls WHERE run_id = ? AND kind = ?"""
    with closing(open_to_read(ledger)) as db:
        values = db.execute(query, (run_id, kind.value)).fetchone()
    return dict(zip(("calls", "input_tokens", "output_tokens", "usd"), values, strict=True))


def read_spent_usd(ledger: Path, run_id: str) -> float:
    """Return the US dollars that a run has spent so far."""
    if not ledger.is_file():
        return 0.0
    with closing(open_to_read(ledger)) as db:
        return float(db.execute("SELECT total(usd) FROM calls WHERE run_id = ?", (run_id,)).fetchone()[0])
