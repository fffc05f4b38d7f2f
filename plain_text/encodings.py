"""Which encoding a text is in: by its mark, by where its NULs are, as UTF-8, and else by plausibility, line by line."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from charset_normalizer import from_bytes
from opencc import OpenCC

LOST = "\ufffd"  # in place of bytes that are no text
_MARKS = (  # longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NAMES = {"gb18030": "GB18030", "big5hkscs": "Big5", "cp932": "Shift-JIS", "euc_jp": "EUC-JP", "cp949": "EUC-KR"}
_CHINESE = ("gb18030", "big5hkscs")
_NULS = re.compile(rb"\0{8,}")  # a hole in a file, and no text of 16 or 32 bits
_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)?")
_FIRST = 256  # bytes of a first line that tell it
_SAMPLE = 500  # lines that the detector looks at
_LONGEST = 8 << 20  # bytes of a line; what is longer is handed on as it is
_PLAUSIBLE = 0.8  # of the characters beyond ASCII are in daily use
_PLAUSIBLE_IF_SHORT = 0.6
_HABIT = 0.25  # by so much another encoding must be more plausible than that of the lines before
_OWN_LETTERS = {"cp932": 0.3, "euc_jp": 0.3, "cp949": 0.95}  # share of kana, of hangul
_SURE = 12  # characters beyond ASCII, from which on a text that uses none of another script's is not that script's


def _common() -> str:
    """Return the hanzi of GB 2312, level 1."""
    gb = (bytes((lead, trail)) for lead in range(0xB0, 0xD8) for trail in range(0xA1, 0xFF))
    return "".join(code.decode("gb2312", "ignore") for code in gb)


_COMMON = frozenset(_common())


def _frequent() -> str:
    """Return the hanzi of daily use, Simplified (GB 2312, level 1) and Traditional (Big5, level 1)."""
    big5 = (bytes((lead, trail)) for lead in range(0xA4, 0xC7) for trail in (*range(0x40, 0x7F), *range(0xA1, 0xFF)))
    return _common() + "".join(code.decode("big5", "ignore") for code in big5)


_MARKS_OF_TEXT = "\u00b0\u00b7\u00d7\u2013-\u2014\u2018-\u201d\u2026\u2103\u3000-\u3011\uff01-\uff5e"
_USED_CHINESE = re.compile(f"[{''.join(sorted(set(_frequent())))}{_MARKS_OF_TEXT}]")
_USED = {
    "gb18030": _USED_CHINESE,
    "big5hkscs": _USED_CHINESE,
    "cp932": re.compile(f"[\u3041-\u30fe\u4e00-\u9fff{_MARKS_OF_TEXT}]"),
    "euc_jp": re.compile(f"[\u3041-\u30fe\u4e00-\u9fff{_MARKS_OF_TEXT}]"),
    "cp949": re.compile(f"[\uac00-\ud7a3{_MARKS_OF_TEXT}]"),
}
_KANA, _BEYOND_ASCII = re.compile("[\u3041-\u30fe]"), re.compile(r"[^\x00-\x7f]")
_ASCII = re.compile(r"[\t\r\n -~]")
_WHOLE_UTF8 = re.compile(rb"[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def find_wide(head: bytes) -> tuple[str, int]:
    """Return the encoding that the first bytes of a text tell, and the length of its mark: UTF-16 or UTF-32, with or
    without a mark; utf-8 for everything else."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    text = _NULS.sub(b"", head)
    text = text[: len(text) - len(text) % 4]
    if text.count(0) < max(4, len(text) // 50):
        return "utf-8", 0
    # ASCII within a text of 16 or 32 bits leaves its NULs at places of its own.
    nuls = [text[place::4].count(0) for place in range(4)]
    most = len(text) // 4 * 0.95
    if min(nuls[2:]) > most or min(nuls[:2]) > most:
        wide = "utf-32-le" if nuls[3] > nuls[0] else "utf-32-be"
    else:
        wide = "utf-16-le" if nuls[1] + nuls[3] > nuls[0] + nuls[2] else "utf-16-be"
    decoded = text.decode(wide, "replace")
    usual = len(_ASCII.findall(decoded)) + len(_USED_CHINESE.findall(decoded))
    return (wide, 0) if usual > len(decoded) * 0.8 else ("utf-8", 0)


def plausibility(text: str, encoding: str) -> float:
    """Return which share of the characters beyond ASCII are in daily use where `encoding` is, in [0, 1]; 1 for none."""
    beyond = len(_BEYOND_ASCII.findall(text))
    return len(_USED[encoding].findall(text)) / beyond if beyond else 1.0


def find_legacy(lines: Sequence[bytes]) -> str:
    """Return the encoding of lines that are no UTF-8 (Python's name), "" where none is plausible. Less than
    half of them may be damaged."""
    texts: dict[str, str] = {}
    scores: dict[str, float] = {}
    for name in _NAMES:
        decoded = [text for line in lines if (text := _decoded(line, name)) is not None]
        if len(decoded) * 2 > len(lines):
            texts[name] = "".join(decoded)
            scores[name] = plausibility(texts[name], name) - (1 - len(decoded) / len(lines)) / 5
    # Japanese and Korean bytes also make common hanzi: their own letters decide, when there are enough of them.
    rival = max((scores.get(name, 0.0) for name in _CHINESE), default=0.0)
    for name, least in _OWN_LETTERS.items():
        beyond = len(_BEYOND_ASCII.findall(texts.get(name, "")))
        if beyond >= _SURE and scores[name] >= min(rival, 0.97):
            own = _KANA if name != "cp949" else _USED[name]
            if len(own.findall(texts[name])) >= least * beyond:
                return name
    best, *others = sorted((name for name in _CHINESE if name in texts), key=lambda name: -scores[name]) or [""]
    if not best or scores[best] < _least(texts[best]):
        return ""
    if not others or scores[best] - scores[others[0]] > 0.05:
        return best
    # Few characters can be at home in both: the commoner ones tell, and of many the detector knows the languages.
    common = {name: _share_of_common(texts[name]) for name in (best, others[0])}
    if abs(common[best] - common[others[0]]) > 0.05:
        return max(common, key=lambda name: common[name])
    if len(_BEYOND_ASCII.findall(texts[best])) < _SURE:
        return _CHINESE[0]
    guess = from_bytes(b"".join(lines), cp_isolation=list(_CHINESE)).best()
    return guess.encoding if guess else ""


def _least(text: str) -> float:
    """Return how plausible a text must be: one word that is not in daily use (癫痫) is much of a short one."""
    return _PLAUSIBLE if len(_BEYOND_ASCII.findall(text)) >= _SURE else _PLAUSIBLE_IF_SHORT


def _share_of_common(text: str) -> float:
    """Return which share of the characters beyond ASCII are the commonest hanzi (GB 2312, level 1, Traditional ones by
    their Simplified form)."""
    folded = _to_simplified().convert(text)
    return sum(character in _COMMON for character in folded) / (len(_BEYOND_ASCII.findall(folded)) or 1)


@cache
def _to_simplified() -> OpenCC:
    return OpenCC("t2s")  # few texts are short enough to need it


def rivals(lines: Sequence[bytes], taken: str) -> list[str]:
    """Return which encodings other than `taken` lines may be in as well that hold too few characters to tell."""
    found = []
    for name in _NAMES.keys() - {taken}:
        decoded = [text for line in lines if (text := _decoded(line, name)) is not None]
        text = "".join(decoded)
        beyond = len(_BEYOND_ASCII.findall(text))
        if len(decoded) < len(lines) or beyond >= _SURE or plausibility(text, name) < _PLAUSIBLE:
            continue
        own = _KANA if name != "cp949" else _USED[name]
        if name in _CHINESE or len(own.findall(text)) >= _OWN_LETTERS[name] * beyond:
            found.append(_NAMES[name])
    return sorted(found)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def is_damaged_utf8(line: bytes) -> bool:
    """Return whether a line that is no UTF-8 is mostly UTF-8 all the same: a character was cut, or some bytes lost."""
    lost = line.decode("utf-8", "replace").count(LOST)
    return len(_WHOLE_UTF8.findall(line)) >= 2 * lost


def _holds_mark(data: bytes) -> bool:
    """Return whether UTF-8's byte-order mark is in `data`. `in` takes six times as long: these bytes are common."""
    code = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
    return bool(((code[:-2] == 0xEF) & (code[1:-1] == 0xBB) & (code[2:] == 0xBF)).any())


class Utf8Lines:
    """Iterate over the bytes of one text as UTF-8 in whole lines, without byte-order marks and NULs at a line's start.

    Lines that are no UTF-8 are read in the legacy encoding that is plausible for those seen so far; a line that is no
    text in it either keeps its bytes.

    Args:
        chunks: the bytes; kept until a line ends.

    After the last line, `lines` counts those with characters beyond ASCII by encoding, `unread` those that are no text.
    """

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks
        self.lines: Counter[str] = Counter()
        self.unread = self.nuls = 0
        self._legacy = ""
        self._first = b""  # line, or its beginning
        self._seen: list[bytes] = []

    @property
    def said(self) -> str:
        """Name the encodings, the commonest first, and what a short text may be in as well; "" for one that is all
        UTF-8."""
        read = [f"{name} {count} lines" for name, count in self.lines.most_common()]
        if not any(not name.startswith("UTF-8") for name in self.lines):
            read = []
        others = rivals(self._seen, self._legacy) if self._legacy else []
        doubt = f" (a guess: so short a text may be {' or '.join(others)} too)" if others else ""
        return ", ".join(read) + doubt

    def __iter__(self) -> Iterator[bytes]:
        head = b""
        for chunk in self._chunks:
            head += chunk
            if len(_NULS.sub(b"", head)) >= 4096:
                break
        wide, mark = find_wide(head)
        if wide == "utf-8":
            yield from self._narrow(head)
        else:
            yield from self._wide(wide, head[mark:])

    def _wide(self, encoding: str, head: bytes) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        rest = ""
        for chunk in self._with(head):
            text = rest + decoder.decode(chunk)
            rest = text[text.rfind("\n") + 1 :]
            if len(rest) < len(text):
                yield self._counted(text[: len(text) - len(rest)], encoding)
        if text := rest + decoder.decode(b"", final=True):
            yield self._counted(text, encoding)

    def _counted(self, text: str, encoding: str) -> bytes:
        self.lines[encoding.upper()] += text.count("\n") + (not text.endswith("\n"))
        self.unread += text.count(LOST)
        return text.replace("\n\ufeff", "\n").lstrip("\ufeff").lstrip("\0").encode("utf-8", "replace")

    def _narrow(self, head: bytes) -> Iterator[bytes]:
        rest = b""
        for chunk in self._with(head):
            if not rest and chunk and not chunk.strip(b"\0"):
                self.nuls += len(chunk)
                continue
            data = rest + chunk if rest else chunk
            end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
            rest = data[end:]
            if end:
                yield self._utf8(data[:end])
            if len(rest) > _LONGEST:
                yield rest
                rest = b""
        if rest:
            yield self._utf8(rest)

    def _with(self, head: bytes) -> Iterator[bytes]:
        yield head
        yield from self._chunks

    def _utf8(self, data: bytes) -> bytes:
        """Return whole lines as UTF-8."""
        if b"\0" in data:
            cleaned = re.sub(rb"(?<![^\r\n])\0+", b"", data)
            self.nuls += len(data) - len(cleaned)
            data = cleaned
        if not self._first:
            self._first = data[:_FIRST].lstrip(codecs.BOM_UTF8).split(b"\n")[0].rstrip(b"\r")
        if _holds_mark(data):
            data = self._without_marks(data)
        try:
            whole = pa.py_buffer(np.array([0, len(data)], np.int32))
            pa.StringArray.from_buffers(1, whole, pa.py_buffer(data)).validate(full=True)  # at memory's speed
            self.lines["UTF-8"] += data.count(b"\n") if self._legacy else 1
            return data
        except pa.ArrowInvalid:
            return b"".join(self._lines(data))

    def _without_marks(self, data: bytes) -> bytes:
        """Remove marks around lines. One within a line begins another where a file was joined to a last line without
        an end: before the first line again, or between two objects of JSON."""
        data = re.sub(rb"(?<![^\r\n])(?:\xef\xbb\xbf)+|(?:\xef\xbb\xbf)+(?=[\r\n]|\Z)", b"", data)
        again = rb"\xef\xbb\xbf(?=" + re.escape(self._first) + rb")|(?<=\})\xef\xbb\xbf(?=\{)"
        return re.sub(again, b"\n", data) if self._first else data

    def _lines(self, data: bytes) -> Iterator[bytes]:
        lines = _LINES.findall(data)
        broken = [line for line in lines if not line.isascii() and _decoded(line, "utf-8") is None]
        foreign = [line for line in broken if not is_damaged_utf8(line)]
        # What was seen before counts too, until a legacy encoding is found.
        if foreign and len(self._seen) < _SAMPLE:
            self._seen = [*self._seen, *foreign][:_SAMPLE]
        if foreign and not self._legacy:
            self._legacy = find_legacy(self._seen)
        broken_lines, mostly_foreign = set(broken), len(foreign) * 2 > sum(not line.isascii() for line in lines)
        for line in lines:
            if line.isascii():
                yield line
            elif line in broken_lines:
                yield self._legacy_line(line)
            elif mostly_foreign and not _WHOLE_UTF8.search(line) and (text := self._as_legacy(line)) is not None:
                # Two-byte characters of UTF-8 by accident: no Chinese text is made of those.
                yield text
            else:
                self.lines["UTF-8"] += 1
                yield line

    def _legacy_line(self, line: bytes) -> bytes:
        text = None if is_damaged_utf8(line) else self._as_legacy(line)
        if text is None:
            self.unread += 1
            return line
        return text

    def _as_legacy(self, line: bytes) -> bytes | None:
        """Read one line in the encoding of the lines before, or in another where that is far more plausible for it."""
        if not self._legacy:
            return None
        names = dict.fromkeys((self._legacy, *(_CHINESE if self._legacy in _CHINESE else ())))
        texts = {name: text for name in names if (text := _decoded(line, name)) is not None}
        scores = {name: plausibility(text, name) for name, text in texts.items()}
        best = max(scores, key=lambda name: scores[name] + _HABIT * (name == self._legacy), default="")
        if not best or scores[best] < _least(texts[best]):
            return None
        self._legacy = best
        self.lines[_NAMES[best]] += 1
        return texts[best].encode("utf-8", "replace")
