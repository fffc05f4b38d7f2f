"""A text file of unknown encoding, read as UTF-8: the one opener of exports, qrels, corpora, click files and documents.

Logs may be packed, and are read once: they stream through the same `encodings.Utf8Lines`.
"""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from plain_text.encodings import LOST, Utf8Lines, find_wide

_LOGGER = logging.getLogger(__name__)
_CHUNK = 1 << 20
_TOLERATED = 0.03  # of its bytes are lost: a damaged text, and no other kind of file
_UNKNOWN = "which encoding is this? Not UTF-8, UTF-16, UTF-32, GB18030, Big5 or another that fits: save it as UTF-8"
_INNER_MARK = re.compile(rb"(?s:.)\xef\xbb\xbf")


class TextFile:
    """UTF-8, UTF-16 and UTF-32, with or without a mark, GB18030, Big5, Shift-JIS, EUC-JP or EUC-KR; of a file that is
    partly one and partly the other each line counts for itself (`encodings.Utf8Lines`).

    Args:
        refusal: the exception to raise, with one line that begins with `name`.
        name: what the file is called; its path by default.

    Attributes:
        encoding: which encodings it took, the commonest first.
        damaged: whether some bytes are no text.
        quotes: how many `"` it holds, 0 for a damaged one.

    Raises:
        refusal: no such file, or it is empty, no text, or in an encoding that cannot be told.
    """

    def __init__(self, path: Path, refusal: type[Exception], name: str = ""):
        self.path, self.damaged, self.quotes, self.encoding = path, False, 0, "UTF-8"
        self._refusal, self._name = refusal, name or str(path)
        try:
            with path.open("rb") as file:
                start = file.read(_CHUNK)
                while start and not start.strip(b" \t\r\n\0") and (more := file.read(_CHUNK)):
                    start = more  # a log that was cut off at its head begins with a hole of NULs
            if not start.strip(b" \t\r\n\0"):
                raise refusal(f"{self._name}: the file is empty")
            self._plain = find_wide(start) == ("utf-8", 0) and self._is_plain_utf8()
            if not self._plain:
                self._recode()
        except OSError as error:
            raise refusal(f"{self._name}: {error.strerror or error}") from None

    @property
    def note(self) -> str:
        """Say which encoding was taken; "" for UTF-8 alone."""
        return "" if self.encoding == "UTF-8" else f"{self._name}: read as {self.encoding}"

    def open(self) -> BinaryIO:
        """Open the text as UTF-8 without a BOM; bytes that are no text become U+FFFD."""
        if self._plain:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(_Recoded(self.path.open("rb")), _CHUNK))

    def lines(self, longest: int = -1) -> Iterator[str]:
        """Yield the lines with their ends, a longer one in pieces of `longest` characters.

        Raises:
            refusal: a line holds bytes that are no text.
        """
        with io.TextIOWrapper(self.open(), encoding="utf-8", newline="") as text:
            for row, line in enumerate(iter(lambda: text.readline(longest), ""), start=1):
                if self.damaged and LOST in line:
                    raise self._refusal(f"{self._name}: row {row}: bytes that are no text")
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
                raise self._refusal(f"{self._name}: {_UNKNOWN}")


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


def open_text(path: Path, refusal: type[Exception], name: str = "") -> TextFile:
    """Open a `TextFile` for a reader that has no other place to say which encoding was taken: it is logged."""
    file = TextFile(path, refusal, name)
    if file.note:
        _LOGGER.warning(file.note)
    return file
