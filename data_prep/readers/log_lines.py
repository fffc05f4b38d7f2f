"""The lines of a log file as Arrow batches: unpacked, in UTF-8, numbered; split in place, never one by one."""

from __future__ import annotations

import io
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from plain_text.encodings import Utf8Lines
from reward.records.files import BadInput

SCHEMA = pa.schema([("line", pa.string()), ("row", pa.int64())])
LONGEST_LINE = 8 << 20  # bytes; what is longer was hardly written as one request
_CHUNK = 1 << 20  # bytes; larger ones are fresh pages from the system each time, smaller ones short vectors
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame that may precede zstd's own


class LogLines:
    """Iterate once, or `close`. Blank lines are in; a line longer than `LONGEST_LINE` is an empty one named in
    `too_long`.

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

    def __iter__(self) -> Iterator[pa.RecordBatch]:
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
                yield self._batch(data)
            if len(rest) > LONGEST_LINE:
                self.too_long.add(self.last_row + 1)
                rest, skipping = b"", True
        if skipping:
            yield self._batch(b"\n")
        elif rest and not self.damage:  # a line cut off by the damage is part of it
            yield self._batch(rest + b"\n")

    def _all_texts(self) -> Iterator[bytes]:
        yield b""
        for text in self._texts:
            yield self._with_newlines(text)

    def _batch(self, data: bytes) -> pa.RecordBatch:
        """Return the lines of `data` that end in it. Buffers are shared: nothing but line lengths is copied."""
        lengths = np.fromiter(map(len, io.BytesIO(data)), np.int32)
        count = len(lengths) - (not data.endswith(b"\n"))
        offsets = np.zeros(count + 1, np.int32)
        np.cumsum(lengths[:count], out=offsets[1:])
        lines = pa.Array.from_buffers(pa.string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
        rows = np.arange(self.last_row + 1, self.last_row + 1 + count)
        self.last_row += count
        return pa.RecordBatch.from_arrays([lines, pa.array(rows)], schema=SCHEMA)

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
