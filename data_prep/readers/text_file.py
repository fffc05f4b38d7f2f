"""A text file of unknown encoding, read as UTF-8."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

from reward.records.files import BadInput

LOST = "\ufffd"  # in place of bytes that are no text
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CHUNK = 1 << 20
_TOLERATED = 0.03  # of a sample's bytes: a damaged text, and no other kind of file


class TextFile:
    """UTF-8, with or without a BOM, GB18030 (as Excel saves it on a Chinese Windows) or UTF-16 with a BOM: the first of
    which all of the file is, or else comes nearest to.

    Args:
        damaged: whether some bytes are none of it.
        quotes: how many `"` it holds, 0 for a damaged one.

    Raises:
        BadInput: no such file, or it is empty or no text.
    """

    def __init__(self, path: Path):
        self.path, self.damaged, self.quotes = path, False, 0
        try:
            with path.open("rb") as file:
                start = file.read(_CHUNK)
            if not start.strip():
                raise BadInput(f"{path}: the file is empty")
            marked = next((name for bom, name in _BOMS.items() if start.startswith(bom)), None)
            candidates = (marked,) if marked else ("utf-8", "gb18030")
            self.encoding = next((name for name in candidates if self._decodes(name)), "")
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}") from None
        if not self.encoding:
            lost = {name: start.decode(name, "replace").count(LOST) for name in candidates}
            self.damaged, self.encoding = True, min(lost, key=lost.__getitem__)
            if lost[self.encoding] > max(1, _TOLERATED * len(start)) or (b"\0\0" in start and not marked):
                raise BadInput(f"{path}: neither UTF-8 nor GB18030 text")

    def _decodes(self, encoding: str) -> bool:
        decoder = codecs.getincrementaldecoder(encoding)()
        self.quotes = 0
        with self.path.open("rb") as file:
            try:
                while chunk := file.read(_CHUNK):
                    self.quotes += decoder.decode(chunk).count('"')
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self.quotes = 0
                return False
        return True

    def open(self) -> BinaryIO:
        """Open the text as UTF-8 without a BOM; bytes that are no text become U+FFFD."""
        if self.encoding == "utf-8" and not self.damaged:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(_Recoded(self.path.open("rb"), self.encoding), _CHUNK))


class _Recoded(io.RawIOBase):
    def __init__(self, file: BinaryIO, encoding: str):
        self._file, self._decoder = file, codecs.getincrementaldecoder(encoding)("replace")
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            chunk = self._file.read(_CHUNK)
            self._waiting = self._decoder.decode(chunk, final=not chunk).encode()
            if not chunk:
                break
        taken = self._waiting[: len(buffer)]
        self._waiting = self._waiting[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._file.close()
        super().close()
