"""The registry of one tenant's versions: copies of the promoted models, and the file that names the champion."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.systems import model_hash
from export.versions.decisions import DECISIONS_FILE, BrokenLedger, Decisions
from guard.private_files import keep_private, make_folder
from reward.records.files import BadInput, write_json

CHAMPION_FILE = "champion.json"


class Registry:
    """Opened by `open_registry`, which holds the lock: what it reads stays so until it is closed.

    The decisions are the truth. `champion.json` follows from them; where a kill came between the two, opening the
    registry writes it again.
    """

    def __init__(self, folder: Path, key: bytes):
        self.folder = folder
        self.decisions = Decisions(folder / DECISIONS_FILE, key)
        self._records = self.decisions.read()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The decisions, oldest first."""
        return list(self._records)

    @property
    def champion(self) -> dict[str, Any] | None:
        """The version in service: {"version", "model", "model_sha256", "decided_at"}; None before the first."""
        stack = self._stack()
        return stack[-1] if stack else None

    @property
    def previous(self) -> dict[str, Any] | None:
        """The version that was in service before the champion and was not rolled back."""
        stack = self._stack()
        return stack[-2] if len(stack) > 1 else None

    def version(self, name: str) -> dict[str, Any] | None:
        """Return the version of that name; None when there is none."""
        return self._versions().get(name)

    def keep(self, model: Path, model_sha256: str) -> tuple[str, Path]:
        """Copy a model into the registry, and return its version and folder. A model has one version.

        Raises:
            BadInput: the folder changed while it was copied.
        """
        versions = self._versions()
        known = next((name for name, v in versions.items() if v["model_sha256"] == model_sha256), None)
        if known and self.problem_of(versions[known]) is None:
            return known, Path(versions[known]["model"])
        version = known or f"v{max((int(name[1:]) for name in versions), default=0) + 1}"
        folder = self.folder / "models" / version
        partial = folder.with_name(f"{version}.partial")
        # What a killed command left, or a version whose files were damaged.
        for leftover in (partial, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        make_folder(partial)
        for file in filter(Path.is_file, model.iterdir()):
            shutil.copy2(file, partial)
        if model_hash(partial) != model_sha256:
            shutil.rmtree(partial)
            raise BadInput(f"{model}: changed while it was copied; nothing was decided")
        partial.rename(folder)
        return version, folder.resolve()

    def decide(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """Append a decision, and move the champion where it says so (`moves_to`: a version's four fields)."""
        record = self.decisions.append({"decided_at": _now(), "by": _user(), "tenant": self.folder.name, **decision})
        self._records.append(record)
        self.mend()
        return record

    def mend(self) -> bool:
        """Make `champion.json` what the decisions say. Returns whether it was something else."""
        champion = self.champion
        path = self.folder / CHAMPION_FILE
        if champion is None or _read(path) == champion:
            return False
        write_json(path, champion)
        return True

    def check_pointer(self) -> None:
        """Compare `champion.json` with the decisions.

        Raises:
            BrokenLedger: it names a decision that the ledger does not hold: lines were cut off its end.
        """
        named = _read(self.folder / CHAMPION_FILE)
        moves = [move for move, _ in self._moves()]
        if named is not None and named not in moves:
            raise BrokenLedger(
                f"{self.decisions.path}: line {len(self._records) + 1}: missing: {CHAMPION_FILE} names "
                f"{named.get('version')} of {named.get('decided_at')}, which no line decides: lines were cut off the "
                f"end, or {CHAMPION_FILE} was written by hand"
            )

    def problem_of(self, version: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the files of a version; None when they are as they were promoted."""
        try:
            found = model_hash(Path(version["model"]))
        except BadInput as problem:
            return str(problem)
        return None if found == version["model_sha256"] else f"{version['model']}: is not the model that was promoted"

    def _moves(self) -> Iterator[tuple[dict[str, Any], str]]:
        for record in self._records:
            if record.get("moves_to"):
                yield {**record["moves_to"], "decided_at": record["decided_at"]}, record["verdict"]

    def _stack(self) -> list[dict[str, Any]]:
        """Return the versions in service one after the other; a rollback takes those after its target away."""
        stack: list[dict[str, Any]] = []
        for move, verdict in self._moves():
            if verdict == "ROLLBACK":
                names = [version["version"] for version in stack]
                target = move["version"]
                stack = stack[: names.index(target)] if target in names else []
            stack.append(move)
        return stack

    def _versions(self) -> dict[str, dict[str, Any]]:
        return {move["version"]: move for move, _ in self._moves()}


@contextmanager
def open_registry(registry: Path, tenant: str, key: bytes) -> Iterator[Registry]:
    """Lock the tenant's part of the registry, mend what a killed command left, and yield it.

    Raises:
        BrokenLedger: the decisions were changed.
    """
    folder = registry.resolve() / tenant
    make_folder(folder)
    with open(folder / "lock", "w", opener=keep_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, however it ends
        opened = Registry(folder, key)
        opened.check_pointer()
        opened.mend()
        yield opened


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: not a champion's file; remove it, the next command writes it again")
    return value


def _user() -> str:
    """Return who decides; a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
