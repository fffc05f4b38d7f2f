"""Read one file in a process of its own: `python -m rag.documents.reader_process`.

A hostile or damaged file can hang its reader, exhaust memory or end the process in ways that nothing catches; a large
one would keep the serving process from its searches. This process has a limit on each, gives way to others, and has
none of our environment and, where the system allows it, no network; any failure of it becomes one line for the caller.

In: one JSON object (path, name, limits, count_tokens). Out: MessagePack, each object after its length in 4 bytes: a
`_Row` for each passage, and last an `_End`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import msgspec

from guard.sealed_process import child_command, child_environment, seal, warn_of_network
from rag.documents.records import Document, IngestError, Passage
from rag.documents.token_blobs import TokenBlobs, token_blobs

SMALL_FILE = 64 << 10  # bytes; characters of a text
LARGEST_OUTPUT = 256 << 20  # bytes
_NICE = 10
_ENDS = {
    -signal.SIGXCPU: "takes too long to read: damaged, or made to",
    -signal.SIGKILL: "takes too long or too much memory to read: damaged, or made to",
}


class _Row(msgspec.Struct, tag=True):
    document: str
    key: str
    content: str
    questions: tuple[str, ...]
    tokens: tuple[bytes, bytes, int] | None


class _End(msgspec.Struct, tag=True):
    """`failure`: why the file could not be read, or ""; `sealed`: the process had no network."""

    failure: str
    sealed: bool


@dataclass(frozen=True)
class Limits:
    """Of one file's reader: bytes of address space, seconds of processor time, seconds by the clock."""

    memory: int = 1 << 30
    cpu: int = 60
    wall: float = 120


def read_in_process(
    path: Path, name: str, limits: Limits | None = None, *, count_tokens: bool = False
) -> list[Document]:
    """Return the documents of a file. `count_tokens`: with their tokens, where the text is no short one.

    Raises:
        IngestError: the file holds none, is damaged or encrypted, or its reader reached one of the limits.
    """
    limits = limits or Limits()
    request = {"path": str(path.resolve()), "name": name, "limits": asdict(limits), "count_tokens": count_tokens}
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
            *rows, end = _frames(output)
            if not isinstance(end, _End):
                raise ValueError("no end")
            documents = list(_documents(rows))
        except (ValueError, msgspec.MsgspecError):  # a file that took its reader over
            raise IngestError(f"{name}: damaged, or made to mislead its reader") from None
    if not end.sealed:
        warn_of_network()
    if end.failure:
        raise IngestError(end.failure)
    return documents


def _frames(file: BinaryIO) -> Iterator[_Row | _End]:
    decoder = msgspec.msgpack.Decoder(_Row | _End)
    while length := file.read(4):
        yield decoder.decode(file.read(int.from_bytes(length)))


def _documents(rows: Iterable[_Row | _End]) -> Iterator[Document]:
    """
    Raises:
        ValueError: what came is no row, or its tokens are none.
    """
    for name, passages in groupby(rows, lambda row: row.document if isinstance(row, _Row) else ""):
        yield Document(name, tuple(map(_passage, passages)))


def _passage(row: _Row | _End) -> Passage:
    if isinstance(row, _End):
        raise ValueError("an end amid the rows")
    tokens = TokenBlobs(*row.tokens) if row.tokens else None
    if tokens is not None and not tokens.is_sound():
        raise ValueError("no tokens")
    return Passage(row.key, row.content, row.questions, tokens)


def main() -> None:
    request = json.load(sys.stdin)
    path, name, limits = Path(request["path"]), request["name"], Limits(**request["limits"])
    sealed = seal(limits.memory, limits.cpu)
    os.nice(_NICE)
    failure = ""
    try:
        _write_documents(path, name, request["count_tokens"])
    except IngestError as error:
        failure = str(error)
    except OSError as error:
        failure = f"{name}: {error.strerror or 'cannot be opened'}"
    except MemoryError:
        failure = f"{name}: needs more memory than a document of its size does: damaged, or made to"
    except BaseException as error:  # a panic of the Rust library is no Exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        failure = f"{name}: cannot be read ({reason})"
    _write(_End(failure, sealed))
    sys.stdout.flush()
    os._exit(0)  # at once: giving back a large document piece by piece takes a while


def _write_documents(path: Path, name: str, count_tokens: bool) -> None:
    from rag.documents.read_documents import read_documents  # it starts this process

    length = written = 0
    for document in read_documents(path, name, sealed=True):
        for passage in document.passages:
            length += len(passage.content)
            tokens = token_blobs(passage.content) if count_tokens and length > SMALL_FILE else None
            written += _write(_Row(document.name, passage.key, passage.content, passage.questions, tokens))
            if written > LARGEST_OUTPUT:
                raise IngestError(f"{name}: holds more text than one document may: split it")


def _write(row: _Row | _End) -> int:
    frame = msgspec.msgpack.encode(row)
    sys.stdout.buffer.write(len(frame).to_bytes(4))
    return sys.stdout.buffer.write(frame)


if __name__ == "__main__":
    main()
