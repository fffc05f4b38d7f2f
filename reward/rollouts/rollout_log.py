"""The log of a run's rollouts: `<run>/rollouts/rollouts-00000.jsonl` …, one `reward.records.outcome.Rollout` a line.

Each rollout is one write of its own, unbuffered: a killed worker (the trainer ends its workers with SIGKILL) loses
nothing, and the writes cost less than the line itself. A line counts once its newline is on disk; a machine that goes
down in mid-write leaves one torn line at most, which the next log of the folder cuts and readers ignore.

Attempts: a run that is resumed repeats the steps after its last checkpoint. Every log begins a file of its own, and a
file is only ever left for the next one at the first rollout of a step higher than any before. So a file whose first
training step had already been logged can only come from a resumed run, and it replaces that step and all later ones of
the files before it: readers look at the head of each file first, and hold no more than one line. All this holds for one
writer a run: with several scoring processes, one of them keeps the log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from pydantic import ValidationError

from guard.private_files import keep_private, make_folder
from reward.records.files import BadInput, first_problem
from reward.records.outcome import Rollout

FOLDER = "rollouts"
# Takes the file, the row and what is wrong with it.
OnBroken = Callable[[Path, int, str], None]
_NAME = re.compile(r"rollouts-(\d{5,})\.jsonl")


class RolloutLog:
    """Appends rollouts to `folder`; use it from one thread, one log at a time per folder.

    Args:
        max_bytes: a file that has reached this size is left for the next one when the next step begins.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, max_bytes: int = 64 * 2**20):
        self._folder, self._max_bytes = folder, max_bytes
        make_folder(folder)
        files = rollout_files(folder)
        if files:
            _cut_torn_line(files[-1])
        self._next = _number(files[-1]) + 1 if files else 0
        self._file: FileIO | None = None
        self._size = self._highest_step = 0

    def append(self, rollout: Rollout) -> None:
        """Write one rollout.

        Raises:
            OSError: it could not be written, say on a full disk; nothing of it remains, and the next one may succeed.
        """
        if self._file is None or (self._size >= self._max_bytes and rollout.step > self._highest_step):
            self._open_next()
        assert self._file is not None
        line = rollout.model_dump_json(by_alias=True).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(line)
        self._highest_step = max(self._highest_step, rollout.step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_next(self) -> None:
        self.close()
        self._file = FileIO(self._folder / _name(self._next), "x", opener=keep_private)
        self._next += 1
        self._size = 0


def rollout_files(folder: Path) -> list[Path]:
    """The log's files in the order they were written."""
    return sorted((path for path in folder.glob("rollouts-*.jsonl") if _NAME.fullmatch(path.name)), key=_number)


def read_rollouts(run: Path, on_broken: OnBroken | None = None) -> Iterator[Rollout]:
    """Rollouts of a run in the order they were scored, of each step only the last attempt (see the module's text).

    Args:
        run: the run's output folder. It may be growing: what is appended while reading may or may not be seen.
        on_broken: takes each line that holds no rollout, a torn one at the end included, and reading goes on.

    Raises:
        BadInput: no log; without `on_broken` also a line that does not hold a rollout (names file and row).
    """
    files = rollout_files(run / FOLDER)
    if not files:
        raise BadInput(f"{run / FOLDER}: no rollouts-*.jsonl")
    first_steps = [_first_step(path, None if on_broken is None else _ignore) for path in files]
    for index, path in enumerate(files):
        replaced_from = min((s for s in first_steps[index + 1 :] if s is not None), default=None)
        for rollout in _rollouts(path, on_broken, is_last=index == len(files) - 1):
            if replaced_from is None or rollout.step < replaced_from:
                yield rollout


def _first_step(path: Path, on_broken: OnBroken | None) -> int | None:
    """The step of a file's first training rollout; None for a file that holds none yet.

    A validation before training bears any step, so it proves nothing.
    """
    rollouts = _rollouts(path, on_broken, is_last=True)
    return next((rollout.step for rollout in rollouts if rollout.sample.metadata.split == "train"), None)


def _rollouts(path: Path, on_broken: OnBroken | None, *, is_last: bool) -> Iterator[Rollout]:
    """Every rollout of one file; only in the last file a torn line may stand at the end."""
    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                if on_broken is not None:
                    on_broken(path, row, "ends in the middle of a line")
                elif not is_last:
                    raise BadInput(f"{path}: row {row}: ends in the middle of a line")
                return
            try:
                rollout = Rollout.model_validate_json(line)
            except ValidationError as error:
                if on_broken is None:
                    raise BadInput(f"{path}: row {row}: {first_problem(error)}") from None
                on_broken(path, row, first_problem(error))
                continue
            yield rollout


def _ignore(path: Path, row: int, problem: str) -> None:
    """Look past a broken line that is named elsewhere."""


def _cut_torn_line(path: Path) -> None:
    """Remove what stands behind the last newline."""
    with path.open("rb+") as file:
        end = position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - 2**16)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                start += newline + 1
                break
            position = start
        else:
            start = 0
        if start < end:
            file.truncate(start)


def _name(number: int) -> str:
    return f"rollouts-{number:05d}.jsonl"


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match.group(1))
