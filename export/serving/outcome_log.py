"""The outcome log: a JSON line for each answer, shadow call, interleaved list and event; its owner's alone.

A thread of its own masks texts and ids of documents and writes the lines: no answer waits for a disk. Users and
sessions have a keyed hash in place of their name: the key lies beside the log, and without it nobody can try telephone
numbers.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import queue
import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from guard.personal.masking import mask_id, mask_message
from guard.private_files import keep_private, make_folder
from reward.records.files import BadInput

_LOG = logging.getLogger("export.serving")
KEY_FILE = "unit.key"
MOST_WAITING = 20_000  # lines; above it new ones are dropped, and counted
TEXTS = {"query", "rewritten_query"}


class OutcomeLog:
    """Append to `<folder>/outcomes_<UTC day>.jsonl`. Any thread may write.

    Attributes:
        dropped: lines that were lost because the disk was too slow or full.
    """

    def __init__(self, folder: Path, texts: bool = True):
        make_folder(folder)
        self._folder, self._texts = folder, texts
        self._key = read_key(folder)
        self.dropped = 0
        self._lines: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._write_all, name="outcome-log", daemon=True)
        self._thread.start()

    def unit(self, name: str) -> str:
        """Return what stands for a user or session in the log."""
        return unit_hash(self._key, name)

    def write(self, kind: str, **facts: Any) -> None:
        """Append a line: `kind`, the time, and the facts; texts are masked, or left out."""
        line = {"kind": kind, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._lines.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        day, out = "", None
        while (line := self._lines.get()) is not None:
            try:
                if line["at"][:10] != day:
                    if out is not None:
                        out.close()
                    day = line["at"][:10]
                    out = self._open(day)
                assert out is not None
                out.write(self._rendered(line))
                if self._lines.empty():
                    out.flush()
            except Exception as problem:
                self.dropped += 1
                day = ""  # open the file anew
                _LOG.error("outcome line lost", extra={"problem": repr(problem)})
        if out is not None:
            out.close()

    def _open(self, day: str) -> TextIO:
        path = self._folder / f"outcomes_{day}.jsonl"
        # A lone surrogate, as JSON may hold it, becomes its escape.
        out = open(path, "a", encoding="utf-8", errors="backslashreplace", opener=keep_private)  # noqa: SIM115
        with path.open("rb") as written:
            if path.stat().st_size:
                written.seek(-1, os.SEEK_END)
                if written.read() != b"\n":
                    out.write("\n")  # a line that a crash has torn
        return out

    def _rendered(self, line: Mapping[str, Any]) -> str:
        kept = dict(line)
        for key in TEXTS & line.keys():
            if self._texts:
                kept[key] = mask_message(line[key])
            else:
                del kept[key]
        if "doc_id" in line:
            kept["doc_id"] = mask_id(line["doc_id"])
        if "shown" in line:
            kept["shown"] = [[mask_id(document), team] for document, team in line["shown"]]
        return json.dumps(kept, ensure_ascii=False) + "\n"


def read_key(folder: Path) -> bytes:
    """Return the key of the folder's units; make it where there is none.

    Raises:
        BadInput: the file holds no key.
    """
    path = folder / KEY_FILE
    try:
        with open(path, "x", encoding="ascii", opener=_new_private) as out:
            out.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadInput(f"{path}: not a key of 64 hexadecimal digits; without the right one, users cannot be told apart")
    return key


def unit_hash(key: bytes, name: str) -> str:
    """Return the keyed hash (HMAC-SHA-256, 16 hexadecimal digits) of a user's or session's name; "" of ""."""
    if not name:
        return ""
    return hmac.new(key, name.encode("utf-8", "backslashreplace"), hashlib.sha256).hexdigest()[:16]


def _new_private(path: str, flags: int) -> int:
    return keep_private(path, flags | os.O_EXCL)
