"""Rewrite CSV of other quoting than RFC 4180 as RFC 4180, as it is read.

Spark and MySQL write a quote within a cell as `\\"` instead of `""`. A quote that opens a cell and is never closed runs
the rows below it together. Both are found here, so that the reader behind sees sound CSV.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from plain_text.text_file import TextFile

UNCLOSED = "\ufdd0"  # in the place of a quote that opens a cell and is never closed; no character of any text
_MARK, _QUOTE, _BOM = UNCLOSED.encode(), ord('"'), b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_LONGEST_CELL = 2 << 20  # bytes
_LOOKED_AT = 32  # chunks of a file, to compare two ways of quoting
_AROUND = np.isin(np.arange(256), [*b",\t;\r\n"])  # what may be before a cell's first quote and behind its last
_BODY = rb'[^"]*+(?:""[^"]*+)*+'
_BODY_WITH_BACKSLASHES = rb'[^"\\]*+(?:(?:\\.|"")[^"\\]*+)*+'
_BACKSLASHES = re.compile(rb'(\\+)(["\r\n,\t;]?)')
_LONE_BACKSLASH = re.compile(rb'\\(?<!\\\\)(?:\\\\)*(?![\\"\r\n,\t;N0])')  # begins with its own byte: fast


@dataclass(frozen=True)
class Quoting:
    """How a file quotes.

    Args:
        sound: every quote is as RFC 4180 has it: the file is read as it is.
        backslash: a quote within a cell is written `\\"`.
        doubled_backslash: a backslash within a cell is written `\\\\`.
    """

    sound: bool = True
    backslash: bool = False
    doubled_backslash: bool = False

    def open(self, file: TextFile, delimiter: str) -> BinaryIO:
        """Open `file` as CSV of RFC 4180 in UTF-8; `UNCLOSED` is in the place of a quote that is never closed."""
        stream = file.open()
        if self.sound:
            return stream
        return cast(BinaryIO, io.BufferedReader(_Rewritten(stream, self, delimiter), _CHUNK))


def find_quoting(file: TextFile, delimiter: str) -> Quoting:
    """Look through `file` and find how it quotes: the way that leaves the fewest quotes unclosed."""
    if _is_sound(file):
        return Quoting()
    escaped, lone = _backslashes(file)
    plain = Quoting(sound=False)
    if not escaped:
        return plain
    backslash = Quoting(sound=False, backslash=True, doubled_backslash=not lone)
    return min((plain, backslash), key=lambda quoting: _unclosed(quoting, file, delimiter))


def _is_sound(file: TextFile) -> bool:
    """Whether every quote opens a cell, closes one or is doubled, and no byte-order mark is behind the start."""
    inside = 0
    with file.open() as stream:
        held = b"\n"  # the byte before those to look at, and the last byte read
        while True:
            chunk = stream.read(_CHUNK)
            held += chunk or b"\n"
            bytes_ = np.frombuffer(held, np.uint8)
            places = np.flatnonzero(bytes_[1:-1] == _QUOTE) + 1
            closing = (np.arange(len(places)) + inside) % 2 == 1
            beside = bytes_[np.where(closing, places + 1, places - 1)]
            if not np.all(_AROUND[beside] | (beside == _QUOTE)) or _BOM in held:
                return False
            inside = (inside + len(places)) % 2
            if not chunk:
                return not inside
            held = held[-2:]


def _backslashes(file: TextFile) -> tuple[bool, bool]:
    """Whether there is a backslash before a quote, and one that can stand for nothing but itself."""
    escaped = lone = False
    held = b""
    with file.open() as stream:
        while chunk := stream.read(_CHUNK):
            held += chunk
            escaped = escaped or b'\\"' in held
            lone = lone or bool(_LONE_BACKSLASH.search(held[:-1]))
            held = held[-64:] if held.endswith(b"\\") else held[-1:]
    return escaped, lone


def _unclosed(quoting: Quoting, file: TextFile, delimiter: str) -> int:
    with quoting.open(file, delimiter) as stream:
        return sum(stream.read(_CHUNK).count(_MARK) for _ in range(_LOOKED_AT))


class _Rewritten(io.RawIOBase):
    def __init__(self, stream: BinaryIO, quoting: Quoting, delimiter: str) -> None:
        self._stream, self._quoting = stream, quoting
        self._bounds = (b"\n", b"\r", delimiter.encode())
        around = b"".join(self._bounds)
        body = _BODY_WITH_BACKSLASHES if quoting.backslash else _BODY
        self._body = re.compile(body, re.DOTALL)
        closed = rb'(%b)"(?= *(?:[%b]|\Z))' % (body, around)
        self._cell = re.compile(rb'(?<![^%b])(?:\xef\xbb\xbf)*"(?:%b)?' % (around, closed), re.DOTALL)
        self._held, self._ended = b"", False
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting and not self._ended:
            chunk = self._stream.read(_CHUNK)
            self._ended = not chunk
            self._held += chunk
            done, self._held = self._rewrite(self._held)
            self._waiting = memoryview(done)
        taken = self._waiting[: len(buffer)]
        self._waiting = self._waiting[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _rewrite(self, text: bytes) -> tuple[bytes, bytes]:
        """Return the rewritten beginning of `text`, and what must wait for more of it."""
        done: list[bytes] = []
        end = 0
        for cell in self._cell.finditer(text):
            start = cell.start()
            if not self._ended and len(text) - start < _LONGEST_CELL and self._may_go_on(cell, text):
                return b"".join([*done, text[end:start]]), text[start:]
            done.append(text[end:start])
            done.append(_MARK if cell[1] is None else b'"%b"' % self._plain(cell[1]))
            end = cell.end()
        # The rest holds no quote that opens a cell; only the last cell may be cut off.
        if self._ended or len(text) - end > _LONGEST_CELL:
            rest = len(text)
        else:
            rest = max(end, *(text.rfind(byte, end) + 1 for byte in self._bounds))
        return b"".join([*done, text[end:rest]]), text[rest:]

    def _may_go_on(self, cell: re.Match[bytes], text: bytes) -> bool:
        """Whether what follows the end of `text` can change what `cell` is."""
        if cell[1] is not None:
            return cell.end() >= len(text) - 1
        body = self._body.match(text, cell.end())
        return body is not None and not text[body.end() + 1 : body.end() + 64].strip(b" ")

    def _plain(self, body: bytes) -> bytes:
        if not self._quoting.backslash or b"\\" not in body:
            return body
        if body.count(b"\\") == body.count(b'\\"'):
            return body.replace(b'\\"', b'""')
        return _BACKSLASHES.sub(self._unescaped, body)

    def _unescaped(self, run: re.Match[bytes]) -> bytes:
        half, odd = divmod(len(run[1]), 2)
        if run[2] == b'"':
            return b"\\" * half + (b'""' if odd else b'"')
        if not self._quoting.doubled_backslash:
            return run[0]
        return b"\\" * (half + (odd and not run[2])) + run[2]

    def close(self) -> None:
        self._stream.close()
        super().close()
