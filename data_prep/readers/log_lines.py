"""Read the lines of a log file: unpacked, in UTF-8, numbered."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pyarrow as pa

from plain_text.encodings import Utf8Lines
from reward.records.files import BadInput

LONGEST_LINE = 8 << 20  # bytes; what is longer was hardly written as one request
_CHUNK = 1 << 20  # bytes; larger ones are fresh pages from the system each time, smaller ones short vectors
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame that may precede zstd's own


class LogLines:
    """Iterate once, or `close`: over the number of a line, from 1, and the lines from it on. Blank lines are in; a line
    longer than `LONGEST_LINE` is an empty one named in `too_long`.

    Encodings: see `encodings.Utf8Lines`. A line that is no text in any keeps its bytes: the parser finds out.

    Args:
        path: plain, gzip, bzip2 or zstd by its first bytes; its name does not count.

    Raises:
        BadInput: no line can be read (missing, empty, damaged from the start).
    """

    def __init__(self, path: Path):
        self._path = path
        self.damage = ""  # why the file ends before its end, once all else has been read
        self.too_long: set[int] = set()
        self.last_row = 0  # number of the last complete line handed out
        self._packing = self._find_packing()
        self._chunks_read = self._chunks()
        self.encodings = Utf8Lines(self._chunks_read)
        self._texts = iter(self.encodings)
        head, self._head_is_all = b"", True
        for text in self._texts:
            head += text
            if len(head) >= _CHUNK // 2:
                self._head_is_all = False
                break
        if not head:
            raise BadInput(f"{path}: {self.damage or 'the file is empty'}")
        # Of a file that ends its lines as old Macs did.
        self._old_ends = b"\n" not in head and b"\r" in head
        self.head = self._with_newlines(head)  # the first lines, or all there is

    def _with_newlines(self, text: bytes) -> bytes:
        return text.replace(b"\r", b"\n") if self._old_ends else text

    @property
    def notes(self) -> list[str]:
        """Say what a user should know of the file, once all of it is read."""
        text = self.encodings
        found = [f"read as {text.said}"] if text.said else []
        return found + ([f"{text.nuls} NUL bytes passed over"] if text.nuls else [])

    def close(self) -> None:
        self._chunks_read.close()

    def head_lines(self) -> list[bytes]:
        """Return the first lines of the file, complete ones only: none where the first is a very long one."""
        lines = self.head.split(b"\n")
        return lines if self._head_is_all else lines[:-1]

    def __iter__(self) -> Iterator[tuple[int, list[bytes]]]:
        rest, skipping = self.head, False
        for text in self._all_texts():
            if skipping:
                end = text.find(b"\n")
                if end < 0:
                    continue
                text, skipping = text[end:], False
            data = rest + text
            rest = data[data.rfind(b"\n") + 1 :]
            if len(rest) < len(data):
                yield self._numbered(data)
            if len(rest) > LONGEST_LINE:
                self.too_long.add(self.last_row + 1)
                rest, skipping = b"", True
        if skipping:
            yield self._numbered(b"\n")
        elif rest and not self.damage:  # a line cut off by the damage is part of it
            yield self._numbered(rest + b"\n")

    def _all_texts(self) -> Iterator[bytes]:
        yield b""
        for text in self._texts:
            yield self._with_newlines(text)

    def _numbered(self, data: bytes) -> tuple[int, list[bytes]]:
        """Return the lines that end in `data`, and the number of the first."""
        lines = data.split(b"\n")
        del lines[-1]
        first = self.last_row + 1
        self.last_row += len(lines)
        return first, lines

    def _find_packing(self) -> str | None:
        try:
            with self._path.open("rb") as file:
                start = file.read(4)
        except OSError as error:
            raise BadInput(f"{self._path}: cannot be read: {error.strerror or error}") from None
        if _SKIPPABLE.match(start):
            return "zstd"
        return next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)

    def _chunks(self) -> Generator[bytes, None, None]:
        """Read the file piece by piece. A read that meets damage gives nothing, so what is before it is read again in
        ever smaller pieces."""
        done = 0
        for size in (_CHUNK, 4096, 1):
            try:
                with pa.OSFile(str(self._path)) as file:
                    stream = pa.CompressedInputStream(file, self._packing) if self._packing else file
                    for start in range(0, done, _CHUNK):
                        stream.read(min(_CHUNK, done - start))
                    while chunk := stream.read(size):
                        done += len(chunk)
                        yield chunk
                self.damage = ""
                return
            except OSError as error:
                self.damage = f"the file is damaged or cut off ({error})"
