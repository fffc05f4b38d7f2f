"""Read one PDF or workbook in a process of its own: `python -m rag.documents.reader_process`.

A hostile or damaged file can hang its reader, exhaust memory or end the process in ways that nothing catches. The
process has a limit on each, none of our environment and, where the system allows it, no network; any failure of it
becomes one line for the caller.

In: one JSON object (path, name, limits). Out: JSON lines, `[content, [question, …]]` for each passage, and last an
object: `failure`, why the file could not be read, or ""; `sealed`, whether the process had no network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import msgspec

from guard.sealed_process import child_command, child_environment, seal, warn_of_network
from rag.documents.faq_workbook import faq_passages
from rag.documents.pdf_file import pdf_snippets
from rag.documents.records import IngestError

LARGEST_TEXT = 64 << 20  # characters of JSON
_ENDS = {
    -signal.SIGXCPU: "takes too long to read: damaged, or made to",
    -signal.SIGKILL: "takes too long or too much memory to read: damaged, or made to",
}


class _End(msgspec.Struct):
    failure: str
    sealed: bool


@dataclass(frozen=True)
class Limits:
    """Of one file's reader: bytes of address space, seconds of processor time, seconds by the clock."""

    memory: int = 1 << 30
    cpu: int = 60
    wall: float = 120


def read_in_process(path: Path, name: str, limits: Limits | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """Return the passages of a PDF or workbook, each with its questions.

    Raises:
        IngestError: the file holds none, is damaged or encrypted, or its reader reached one of the limits.
    """
    limits = limits or Limits()
    request = {"path": str(path.resolve()), "name": name, "limits": asdict(limits)}
    with tempfile.TemporaryFile() as output:
        try:
            ended = subprocess.run(
                child_command("rag.documents.reader_process"),
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                timeout=limits.wall,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise IngestError(f"{name}: takes longer than {limits.wall:g} s to read: damaged, or made to") from None
        if ended != 0:
            raise IngestError(f"{name}: {_ENDS.get(ended, 'damaged, or made to exhaust its reader')}")
        output.seek(0)
        try:
            *lines, last = output
            end = msgspec.json.decode(last, type=_End)
            entries = [msgspec.json.decode(line, type=tuple[str, tuple[str, ...]]) for line in lines]
        except (ValueError, msgspec.MsgspecError):  # a file that took its reader over
            raise IngestError(f"{name}: damaged, or made to mislead its reader") from None
    if not end.sealed:
        warn_of_network()
    if end.failure:
        raise IngestError(end.failure)
    return entries


def main() -> None:
    request = json.load(sys.stdin)
    path, name, limits = Path(request["path"]), request["name"], Limits(**request["limits"])
    sealed = seal(limits.memory, limits.cpu)
    failure = ""
    try:
        _write(_passages(path, name), name)
    except IngestError as error:
        failure = str(error)
    except OSError as error:
        failure = f"{name}: {error.strerror or 'cannot be opened'}"
    except MemoryError:
        failure = f"{name}: needs more memory than a document of its size does: damaged, or made to"
    except BaseException as error:  # a panic of the Rust library is no Exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        failure = f"{name}: cannot be read ({reason})"
    print(msgspec.json.encode(_End(failure, sealed)).decode(), flush=True)
    os._exit(0)  # at once: giving back a large document piece by piece takes a while


def _passages(path: Path, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if PurePosixPath(name).suffix.lower() != ".pdf":
        return faq_passages(path, name)
    return ((snippet, ()) for snippet in pdf_snippets(path, name))


def _write(passages: Iterator[tuple[str, tuple[str, ...]]], name: str) -> None:
    written = 0
    for passage in passages:
        line = json.dumps(passage)
        written += len(line)
        if written > LARGEST_TEXT:
            raise IngestError(f"{name}: holds more text than one document may: split it")
        print(line)


if __name__ == "__main__":
    main()
