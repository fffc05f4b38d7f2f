"""A text file of unknown encoding, read as UTF-8: the one opener of exports, qrels, corpora and click tables."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_prep.readers.encodings import LOST, Utf8Lines, find_wide
from reward.records.files import BadInput

__all__ = ["LOST", "TextFile", "read_json_lines"]

_CHUNK = 1 << 20
_TOLERATED = 0.03  # of its bytes are lost: a damaged text, and no other kind of file
_UNKNOWN = "which encoding is this? Not UTF-8, UTF-16, UTF-32, GB18030, Big5 or another that fits: save it as UTF-8"
_INNER_MARK = re.compile(rb"[\r\n]\xef\xbb\xbf")


class TextFile:
    """UTF-8, UTF-16 and UTF-32, with or without a mark, GB18030, Big5, Shift-JIS, EUC-JP or EUC-KR; of a file that is
    partly one and partly the other each line counts for itself (`encodings.Utf8Lines`).

    Args:
        encoding: which encodings it took, the commonest first.
        damaged: whether some bytes are no text.
        quotes: how many `"` it holds, 0 for a damaged one.

    Raises:
        BadInput: no such file, or it is empty, no text, or in an encoding that cannot be told.
    """

    def __init__(self, path: Path):
        self.path, self.damaged, self.quotes, self.encoding = path, False, 0, "UTF-8"
        try:
            with path.open("rb") as file:
                start = file.read(_CHUNK)
                while start and not start.strip(b" \t\r\n\0") and (more := file.read(_CHUNK)):
                    start = more  # a log that was cut off at its head begins with a hole of NULs
            if not start.strip(b" \t\r\n\0"):
                raise BadInput(f"{path}: the file is empty")
            self._plain = find_wide(start) == ("utf-8", 0) and self._is_plain_utf8()
            if not self._plain:
                self._recode()
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}") from None

    @property
    def note(self) -> str:
        """Say which encoding was taken; "" for UTF-8 alone."""
        return "" if self.encoding == "UTF-8" else f"{self.path}: read as {self.encoding}"

    def open(self) -> BinaryIO:
        """Open the text as UTF-8 without a BOM; bytes that are no text become U+FFFD."""
        if self._plain:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(_Recoded(self.path.open("rb")), _CHUNK))

    def lines(self) -> Iterator[str]:
        """Yield the lines with their ends.

        Raises:
            BadInput: a line holds bytes that are no text.
        """
        with io.TextIOWrapper(self.open(), encoding="utf-8", newline="") as text:
            for row, line in enumerate(text, start=1):
                if self.damaged and LOST in line:
                    raise BadInput(f"{self.path}: row {row}: bytes that are no text")
                yield line

    def _is_plain_utf8(self) -> bool:
        """Return whether the bytes can be read as they are, and count the quotes."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        last = b""
        with self.path.open("rb") as file:
            try:
                while chunk := file.read(_CHUNK):
                    data = last + chunk
                    if b"\0" in chunk or (codecs.BOM_UTF8 in data and _INNER_MARK.search(data)):
                        return False
                    self.quotes += decoder.decode(chunk).count('"')
                    last = chunk[-4:]
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                return False
        return True

    def _recode(self) -> None:
        """Read all of the text once: which encodings, how many quotes, what is lost."""
        size = lost = 0
        with self.path.open("rb") as file:
            text = Utf8Lines(iter(lambda: file.read(_CHUNK), b""))
            for data in text:
                self.quotes += data.count(b'"')
                size += len(data)
                lost += data.decode("utf-8", "replace").count(LOST) if text.unread else 0
        self.encoding = text.said or "UTF-8"
        if text.unread:
            self.damaged, self.quotes = True, 0
            if lost > max(1, _TOLERATED * size):
                raise BadInput(f"{self.path}: {_UNKNOWN}")


class _Recoded(io.RawIOBase):
    def __init__(self, file: BinaryIO):
        self._file = file
        self._texts = iter(Utf8Lines(iter(lambda: file.read(_CHUNK), b"")))
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            text = next(self._texts, None)
            if text is None:
                return 0
            self._waiting = text.decode("utf-8", "replace").encode()
        taken = self._waiting[: len(buffer)]
        self._waiting = self._waiting[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._file.close()
        super().close()


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the row number, from 1, and the object of each line that is not blank.

    Raises:
        BadInput: the file is missing or no text, or a line is no JSON object (names file and row).
    """
    for row, line in enumerate(TextFile(path).lines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else "a number too long, or nested too deeply"
            raise BadInput(f"{path}: row {row}: not JSON ({what})") from None
        if not isinstance(value, dict):
            raise BadInput(f"{path}: row {row}: expected an object, found {type(value).__name__}")
        yield row, value
