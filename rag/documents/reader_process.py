"""Read one PDF or workbook in a process of its own: `python -m rag.documents.reader_process`.

A hostile or damaged file can hang its reader, exhaust memory or end the process in ways that nothing catches. The
process has a limit on each, and any failure of it becomes one line for the caller.

In: one JSON object (path, name, limits). Out: JSON lines, `[content, [question, …]]` for each passage, and last a
text: why the file could not be read, or "".
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from rag.documents.faq_workbook import faq_passages
from rag.documents.pdf_file import pdf_snippets
from rag.documents.records import IngestError

LARGEST_TEXT = 64 << 20  # characters of JSON
_ENDS = {
    -signal.SIGXCPU: "takes too long to read: damaged, or made to",
    -signal.SIGKILL: "takes too long or too much memory to read: damaged, or made to",
}


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
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join((root, *filter(None, [os.environ.get("PYTHONPATH")])))
    with tempfile.TemporaryFile() as output:
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "rag.documents.reader_process"],
                input=json.dumps(request).encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": search},
                timeout=limits.wall,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise IngestError(f"{name}: takes longer than {limits.wall:g} s to read: damaged, or made to") from None
        if ended != 0:
            raise IngestError(f"{name}: {_ENDS.get(ended, 'damaged, or made to exhaust its reader')}")
        output.seek(0)
        *entries, failure = (json.loads(line) for line in output)
    if failure:
        raise IngestError(failure)
    return [(content, tuple(questions)) for content, questions in entries]


def main() -> None:
    request = json.load(sys.stdin)
    path, name, limits = Path(request["path"]), request["name"], Limits(**request["limits"])
    for limit, value, hard in (
        (resource.RLIMIT_AS, limits.memory, limits.memory),
        (resource.RLIMIT_CPU, limits.cpu, limits.cpu + 5),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with suppress(ValueError, OSError):  # a stricter limit is set already, or the system knows none
            resource.setrlimit(limit, (value, hard))
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
    print(json.dumps(failure), flush=True)
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
