"""The ledger of decisions: append-only, a JSON line each, chained by SHA-256 and signed with HMAC-SHA256.

A line holds the hash of the line before it, so that none can be changed, added, removed or moved unseen; its signature
needs the key, so that nobody without it can write a line. Who holds the key can write as well as verify. Lines cut off
the end leave a shorter valid ledger: the champion's file tells where it named a later decision.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard.private_files import keep_private, make_folder
from reward.records.files import BadInput

DECISIONS_FILE = "decisions.jsonl"
SHORTEST_KEY = 16  # characters


class BrokenLedger(BadInput):
    """A ledger that was changed: one line naming the file, the first broken line and what is wrong with it."""


class Decisions:
    """The decisions of one tenant. The caller holds the registry's lock.

    Args:
        path: the file; it need not exist.
        key: of the signatures.
    """

    def __init__(self, path: Path, key: bytes):
        self.path = path
        self._key = key

    def read(self) -> list[dict[str, Any]]:
        """Return the decisions, oldest first, each verified; a torn last line is no decision and left out, a whole one
        without its line end is one.

        Raises:
            BrokenLedger: a line was changed, added, removed or moved, or signed with another key.
        """
        return [json.loads(line) for line in self._verified_lines()]

    def append(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """Sign `decision`, append it with `n` (from 1) and the hash of the line before, and return what was written.

        A torn last line, left by a kill or a full disk, is cut off first.

        Raises:
            BrokenLedger: as `read`.
        """
        lines = self._verified_lines()
        previous = hashlib.sha256(lines[-1]).hexdigest() if lines else self._first_link()
        record = {"n": len(lines) + 1, **decision, "previous": previous}
        record["signature"] = _signature(record, self._key)
        make_folder(self.path.parent)
        size = sum(len(line) + 1 for line in lines)
        # One write, then to the disk: what follows the decision (the pointer) must not outlive it.
        with open(self.path, "ab", opener=keep_private) as out:
            if out.tell() > size:
                out.truncate(size)
            elif out.tell() < size:
                out.write(b"\n")
            out.write(_canonical(record) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        return record

    def _verified_lines(self) -> list[bytes]:
        if not self.path.is_file():
            return []
        *lines, last = self.path.read_bytes().split(b"\n")
        previous = self._first_link()
        for n, line in enumerate(lines, start=1):
            if problem := self._problem_of(line, n, previous):
                raise BrokenLedger(f"{self.path}: line {n}: {problem}")
            previous = hashlib.sha256(line).hexdigest()
        return lines if self._problem_of(last, len(lines) + 1, previous) else [*lines, last]

    def _problem_of(self, line: bytes, n: int, previous: str) -> str:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or _canonical(record) != line:
            return "is no decision as it was written"
        if not hmac.compare_digest(str(record.get("signature")), _signature(record, self._key)):
            return "its signature is wrong: it was changed, or signed with another key"
        if record.get("previous") != previous or record.get("n") != n:
            return "does not follow the line before it: a line was removed, added or moved"
        return ""

    def _first_link(self) -> str:
        """Return what the first line is chained to: the tenant, so that no other tenant's ledger fits here."""
        return hashlib.sha256(self.path.parent.name.encode()).hexdigest()


def read_key(variable: str) -> bytes:
    """Read the ledger's key from the environment.

    Raises:
        BadInput: the variable is not set, or its value is too short to protect anything.
    """
    key = os.environ.get(variable, "")
    if len(key) < SHORTEST_KEY:
        what = "is not set" if not key else f"has fewer than {SHORTEST_KEY} characters"
        raise BadInput(f"{variable}: {what}; it signs the decisions, e.g. {variable}=$(openssl rand -hex 32)")
    return key.encode()


def _signature(record: Mapping[str, Any], key: bytes) -> str:
    unsigned = {name: value for name, value in record.items() if name != "signature"}
    return hmac.new(key, _canonical(unsigned), hashlib.sha256).hexdigest()


def _canonical(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate, as a path may hold, stays its JSON escape
