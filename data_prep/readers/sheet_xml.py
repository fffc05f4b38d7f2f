"""Read the sheets of an .xlsx row by row from its XML: only the cells that are there, and each of them once.

A stray cell in the last row costs nothing, and no sheet is in memory as a whole. Cells as Excel, WPS and the common
libraries write them are found by one pattern; a piece of a sheet where the pattern does not account for every cell goes
through an XML parser.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree

from data_prep.readers.number_formats import MOMENT, date_styles

_CHUNK = 1 << 20
_LARGEST_ROW = 64 << 20  # bytes of XML
_ZZZ = 18_278  # one more than the last column of three letters
_WORKSHEET, _STRINGS, _STYLES, _BOOK = "/worksheet", "/sharedStrings", "/styles", "/officeDocument"
_EPOCH = datetime(1899, 12, 30)
_DAYS_TO_1904 = 1462

_STRING = re.compile(
    rb"<si>\s*<t(?: xml:space=[\"']preserve[\"'])?(?:/>|>([^<]*)</t>)\s*(?:<phoneticPr [^>]*/>\s*)?</si>"
)
_ENTITIES = {"amp": b"&", "lt": b"<", "gt": b">", "quot": b'"', "apos": b"'"}
_ESCAPED = re.compile(rb"_x([0-9A-Fa-f]{4})_")
_REFERENCE = re.compile(rb"&#?\w+;|_x[0-9A-Fa-f]{4}_|\r\n?")
_UNCALCULATED = b"uncalculated"  # in the place of a cell's type
# Groups: letters of the column, style, type, value; in `_ANY_CELL` also the formula.
_ATTRIBUTES = rb'<c(?: r="([A-Z]{1,3})[0-9]{1,7}")?(?: s="([0-9]+)")?(?: t="([a-zA-Z]+)")?'
_CELL = re.compile(_ATTRIBUTES + rb"(?:/>|><v>([^<]*)</v></c>)")
_ANY_CELL = re.compile(
    _ATTRIBUTES + rb"\s*(?:/>|>(<f(?=[\s/>])[^>]*/>|<f(?=[\s/>])[^>]*>[^<]*</f>)?"
    rb'(?:<v\s*/>|(?:<v(?: xml:space="preserve")?>|<is><t(?: xml:space="preserve")?>)([^<]*)(?:</v>|</t></is>))?</c>)'
)
_PLACE = re.compile(r"\$?([A-Z]{1,3})\$?([0-9]{1,7})")
_NUMBER = re.compile(rb'\sr="([0-9]{1,7})"')
_ROOT = re.compile(rb"<(?:(\w+):)?(?:worksheet|sst)(?:\s[^>]*)?>")
_CELL_NUMBER = re.compile(rb'<c r="[A-Z]{1,3}([0-9]{1,7})"')
_MERGED = re.compile(rb"mergeCell\s[^>]*?ref=[\"']\$?([A-Z]{1,3})\$?([0-9]{1,7}):\$?[A-Z]{1,3}\$?([0-9]{1,7})[\"']")


@dataclass(frozen=True, slots=True)
class CellError:
    """A cell without a value: `code` as #N/A; "" for a formula that was never calculated."""

    code: str


Cell: TypeAlias = bytes | float | bool | CellError  # a text is UTF-8
Row: TypeAlias = dict[int, Cell]  # column from 0 → what is there
Merged: TypeAlias = dict[int, list[tuple[int, int]]]  # row → (last row, column) of cells over several rows, from 0


class DamagedSheet(Exception):
    """A part of the workbook is not what it should be; says what in one line."""


@dataclass(frozen=True)
class Sheet:
    """A worksheet of the workbook."""

    name: str
    hidden: bool


class WorkbookXml:
    """The .xlsx at `path`.

    Args:
        sheets: its worksheets, in their order.
        date1904: whether day 0 is 1 January 1904.

    Raises:
        zipfile.BadZipFile, zlib.error, ElementTree.ParseError, KeyError, OSError, DamagedSheet: it is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # an .xls may hold a zip file too
                raise DamagedSheet("no zip file")
        self._zip = zipfile.ZipFile(path)
        book = next((t for kind, _, t in self._relations("") if kind.endswith(_BOOK)), "xl/workbook.xml")
        relations = self._relations(book)
        parts = {key: target for kind, key, target in relations if kind.endswith(_WORKSHEET)}
        self.sheets: list[Sheet] = []
        self._parts: list[str] = []
        self.date1904 = False
        for element in ElementTree.fromstring(self._zip.read(book)).iter():
            tag = _local(element.tag)
            attributes = {_local(key): value for key, value in element.attrib.items()}
            if tag == "workbookPr":
                self.date1904 = attributes.get("date1904") in ("1", "true")
            elif tag == "sheet" and (part := parts.get(attributes["id"])):
                self.sheets.append(Sheet(attributes["name"], attributes.get("state", "visible") != "visible"))
                self._parts.append(part)
        others = {kind.rpartition("/")[2]: target for kind, _, target in relations}
        names = set(self._zip.namelist())
        styles, strings = others.get(_STYLES[1:], ""), others.get(_STRINGS[1:], "")
        self._dates = date_styles(self._zip.read(styles)) if styles in names else {}
        self._texts = self._shared_texts(strings) if strings in names else []

    def _relations(self, part: str) -> list[tuple[str, str, str]]:
        folder, _, name = part.rpartition("/")
        root = ElementTree.fromstring(self._zip.read(posixpath.join(folder, "_rels", f"{name}.rels")))
        targets = [posixpath.normpath(posixpath.join("/", folder, r.get("Target", "")))[1:] for r in root]
        return [(r.get("Type", ""), r.get("Id", ""), target) for r, target in zip(root, targets, strict=True)]

    def _shared_texts(self, part: str) -> list[bytes]:
        texts: list[bytes] = []
        for piece, root in self._pieces(part, b"si"):
            found = _STRING.findall(piece)
            if _is_plain(piece, root) and len(found) == piece.count(b"<si"):
                texts += found
            else:
                items = (_xml_text(item) for item in _parsed(piece, root) if _local(item.tag) == "si")
                texts += [_ESCAPED.sub(_character, text) for text in items]
                continue
            if b"&" in piece or b"_x" in piece or b"\r" in piece:
                first = len(texts) - len(found)
                texts[first:] = map(_plain, found)
        return texts

    def merged(self, index: int) -> Merged:
        """Return the cells of a sheet that are merged over several rows.

        Read the sheet to its end, so that a damaged one is known before its first row is given.
        """
        found: Merged = {}
        held = b""
        for chunk in self._chunks(self._parts[index]):
            held += chunk
            if b"mergeCell" in held:
                for letters, top, bottom in _MERGED.findall(held):
                    if int(bottom) > int(top):
                        found.setdefault(int(top) - 1, []).append((int(bottom) - 1, _COLUMNS[letters]))
                held = held[held.rfind(b">") + 1 :]
            else:
                held = held[-200:]
        return found

    def rows(self, index: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows of a sheet that hold a cell: number from 0, cells.

        A cell without a reference is beside the one before it, a row without one below the one before it.

        Raises:
            DamagedSheet, ElementTree.ParseError, zipfile.BadZipFile: the sheet cannot be read from here on.
        """
        texts, dates, columns, number = self._texts, self._dates, _COLUMNS, -1
        for piece, root in self._pieces(self._parts[index], b"row"):
            for row_number, found in _found_cells(piece, root):
                number = row_number - 1 if row_number else number + 1
                cells: Row = {}
                last = -1
                try:
                    for letters, style, kind, value in found:
                        last = columns[letters] if letters else last + 1
                        if not value:
                            if kind == _UNCALCULATED:
                                cells[last] = CellError("")
                        elif kind == b"s":
                            cells[last] = texts[int(value)]
                        elif not kind and style not in dates:
                            cells[last] = float(value)
                        else:
                            cells[last] = self._value(kind, value, style)
                except (ValueError, IndexError):
                    raise DamagedSheet(f"row {number + 1}: no number and no shared text") from None
                if cells:
                    yield number, cells

    def _value(self, kind: bytes, value: bytes, style: bytes) -> Cell:
        if kind == b"b":
            return value.strip() in (b"1", b"true")
        if kind == b"e":
            return CellError(value.decode(errors="replace")[:20])
        if kind in (b"str", b"inlineStr", b"d"):
            return _plain(value)
        number, shown = float(value), self._dates.get(style)
        return number if shown is None else _moment(number, shown, self.date1904)

    def _pieces(self, part: str, item: bytes) -> Iterator[tuple[bytes, re.Match[bytes]]]:
        """Yield the content of `part` in pieces that end behind a whole `item`, each with the root's start tag."""
        chunks = self._chunks(part)
        held = next(chunks, b"")
        if held.startswith((b"\xff\xfe", b"\xfe\xff")) or b"<!DOCTYPE" in held:
            raise DamagedSheet("XML of an unusual kind")
        root = _ROOT.search(held)
        if root is None:
            raise DamagedSheet("no XML of a workbook")
        prefix = root[1] + b":" if root[1] else b""
        container = b"sheetData" if item == b"row" else b"sst"
        opening = re.compile(rb"<%b%b(?:\s[^>]*)?>" % (prefix, container))
        while (opened := opening.search(held)) is None and (chunk := next(chunks, b"")) and len(held) < _LARGEST_ROW:
            held += chunk  # many columns are described above the rows
        if opened is None or opened[0].endswith(b"/>"):
            return
        held = held[opened.end() :]
        end, close = b"</%b%b>" % (prefix, container), b"</%b%b>" % (prefix, item)
        while True:
            before, ended, _ = held.partition(end)
            if ended:
                yield before, root
                return
            cut = held.rfind(close) + len(close)
            if cut >= len(close):
                yield held[:cut], root
                held = held[cut:]
            chunk = next(chunks, b"")
            if not chunk or len(held) > _LARGEST_ROW:
                raise DamagedSheet(f"{part} ends in the middle")
            held += chunk

    def _chunks(self, part: str) -> Iterator[bytes]:
        """Yield the content of `part`; the next chunk is unpacked beside the work on this one."""
        with self._zip.open(part) as stream, ThreadPoolExecutor(1) as beside:
            stream.MIN_READ_SIZE = _CHUNK  # type: ignore[attr-defined]  # fewer turns of Python's lock
            coming = beside.submit(stream.read, _CHUNK)
            while chunk := coming.result():
                coming = beside.submit(stream.read, _CHUNK)
                yield chunk


def _is_plain(piece: bytes, root: re.Match[bytes]) -> bool:
    """Whether patterns may look at `piece`: no prefix in its tags, no comments and no CDATA."""
    return root[1] is None and not any(sign[1:] in piece and sign in piece for sign in (b"<!", b"<?"))  # one is fast


def _parsed(piece: bytes, root: re.Match[bytes]) -> ElementTree.Element:
    name = root[0][1:].split(None, 1)[0].rstrip(b">")
    return ElementTree.fromstring(root[0] + piece + b"</" + name + b">")


def _found_cells(piece: bytes, root: re.Match[bytes]) -> Iterator[tuple[int, Sequence[tuple[bytes, ...]]]]:
    """Yield each row of a piece of a sheet: its number from 1, 0 for none, and what `_CELL` finds in it."""
    count = piece.count(b"<c")
    for find in (_CELL.findall, _find_any) if _is_plain(piece, root) else ():
        found = []
        for text in piece.split(b"<row")[1:]:
            head, _, body = text.partition(b">")
            number = _NUMBER.search(head) or _CELL_NUMBER.match(body)
            found.append((int(number[1]) if number else 0, find(body)))
            count -= len(found[-1][1])
        if not count and piece.count(b"<r") == len(found):
            yield from found
            return
        count = piece.count(b"<c")
    for row in _parsed(piece, root):
        if _local(row.tag) == "row":
            cells = list(_parsed_cells(row))
            first = next((number for number, _ in cells if number), 0)
            yield int(row.get("r") or first), [cell for _, cell in cells]


def _find_any(text: bytes) -> list[tuple[bytes, ...]]:
    """Find cells with formulas and texts of their own."""
    return [
        (letters, style, _UNCALCULATED if formula and not value and kind != b"str" else kind, value)
        for letters, style, kind, formula, value in _ANY_CELL.findall(text)
    ]


def _parsed_cells(row: ElementTree.Element) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Yield the number of its row that each cell names, 0 for none, and what `_CELL` finds in it, for any XML."""
    for cell in row:
        if _local(cell.tag) != "c":
            continue
        place = _PLACE.fullmatch(cell.get("r", ""))
        if place is None and cell.get("r") is not None:
            raise DamagedSheet(f"no cell is called {cell.get('r', '')[:20]!r}")
        letters, number = (place[1].encode(), int(place[2])) if place else (b"", 0)
        parts = {_local(part.tag): part for part in cell}
        value = (parts["v"].text or "").encode() if "v" in parts else _xml_text(parts["is"]) if "is" in parts else b""
        style, kind = cell.get("s", "").encode(), cell.get("t", "").encode()
        if "f" in parts and not value and kind != b"str":
            kind = _UNCALCULATED
        yield number, (letters, style, kind, value.replace(b"&", b"&amp;").replace(b"<", b"&lt;"))


def _xml_text(item: ElementTree.Element) -> bytes:
    """Return the text of a shared or an inline string: its runs, in their order, without the readings above them."""
    runs = [list(part) if _local(part.tag) == "r" else [part] for part in item]
    return "".join(part.text or "" for run in runs for part in run if _local(part.tag) == "t").encode()


def _plain(text: bytes) -> bytes:
    return _REFERENCE.sub(_referred, text) if b"&" in text or b"_x" in text or b"\r" in text else text


def _referred(found: re.Match[bytes]) -> bytes:
    token = found[0]
    if token[:1] == b"_":
        return _ESCAPED.sub(_character, token)
    if token[:1] == b"\r":
        return b"\n"
    name = token[1:-1].decode()
    if name[0] != "#":
        return _ENTITIES.get(name, token)
    try:
        return chr(int("0" + name[1:], 16) if name[1] in "xX" else int(name[1:])).encode(errors="replace")
    except (ValueError, OverflowError):
        return token


def _character(found: re.Match[bytes]) -> bytes:
    code = int(found[1], 16)
    return found[0] if 0xD800 <= code < 0xE000 else chr(code).encode()


def _moment(number: float, shown: str, date1904: bool) -> Cell:
    """Write a day number as ISO 8601: a date, a time of day, both, or a duration (`1 day, 12:00:00`)."""
    try:
        duration = timedelta(milliseconds=round(number * 86_400_000))
        if shown != MOMENT:
            return str(duration).encode()
        moment = _EPOCH + timedelta(days=_DAYS_TO_1904 * date1904) + duration
    except OverflowError:
        return number
    if 0 <= number < 1 and not date1904:
        return moment.time().isoformat().encode()
    return (moment.date() if number.is_integer() else moment).isoformat().encode()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _letters(column: int) -> bytes:
    text = b""
    while column >= 0:
        column, place = divmod(column, 26)
        text, column = bytes([65 + place]) + text, column - 1
    return text


_COLUMNS = {_letters(column): column for column in range(_ZZZ)}
