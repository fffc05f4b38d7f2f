"""Builds SFT data from each file given and says what came of it: `python -m tests.support.build_mutants OUT FILE …`.

One JSON line a file: what `Built` holds. A build that takes longer than `LONGEST` ends the process, with its stack.
"""

from __future__ import annotations

import faulthandler
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

import psutil

from data_prep import build_sft

LONGEST = 60.0  # seconds


@dataclass(frozen=True)
class Built:
    """`error`: all that was written to stderr. Rows and samples of what was written, -1 where nothing was. `peak_mb`:
    megabytes of this process and its children together, shared pages once, at the worst moment seen."""

    file: str
    code: int
    error: str
    rows_in: int = -1
    samples: int = -1
    quarantined: int = -1
    peak_mb: float = 0.0


def build(file: Path, out: Path) -> Built:
    said, error = io.StringIO(), io.StringIO()
    faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)
    with redirect_stdout(said), redirect_stderr(error), Memory() as memory:
        code = build_sft.main(
            ["--input", str(file), "--tenant", "fivedoctors", "--out", str(out), "--split", "train", "--no-augment"]
        )
    faulthandler.cancel_dump_traceback_later()
    if code:
        return Built(file.name, code, error.getvalue(), peak_mb=memory.peak_mb)
    stats = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    samples = (out / "train_latest.jsonl").read_bytes().count(b"\n")
    quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_bytes().splitlines()]
    refused = sum(line.get("row") is not None for line in quarantine)
    return Built(file.name, code, error.getvalue(), stats["rows_in"], samples, refused, memory.peak_mb)


class Memory:
    """Looks every 50 ms, while it is entered."""

    def __enter__(self) -> Memory:
        self.peak_mb, self._done = 0.0, Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._done.wait(0.05):
            held = own.memory_full_info().pss
            for child in own.children(recursive=True):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it ended while we looked
                    held += child.memory_full_info().pss
            self.peak_mb = max(self.peak_mb, held / 2**20)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(json.dumps(asdict(build(Path(name), Path(sys.argv[1], Path(name).name)))), flush=True)
