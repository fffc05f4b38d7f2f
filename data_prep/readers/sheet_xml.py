"""What an .xlsx says and calamine does not hand on: error cells (it reads them as empty), formulas that were never
calculated, and whether the workbook counts its days from 1904.

A sheet is looked through as it is unpacked, a megabyte at a time, and only for those few cells.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

NEVER_CALCULATED = ""  # in the place of an error's code
_CHUNK = 1 << 20
_LONGEST_CELL = 1 << 19  # bytes: 32 767 characters, each escaped
_P = rb"(?:\w+:)?"  # a namespace prefix
_ROOT = re.compile(rb"<(\w+:|)worksheet\b")
_PLACE = rb"""(?=[^>]*\sr=["']([A-Z]{1,3})([0-9]{1,7})["'])"""
_FORMULA = rb"\s*<" + _P + rb"f\b(?:[^>]*/>|[^>]*>[^<]*</" + _P + rb"f>)"
_ERROR_CELL = re.compile(
    rb"<" + _P + rb"c(?=[^>]*\st=[\"']e[\"'])" + _PLACE + rb"[^>]*>(?:" + _FORMULA + rb")?\s*<" + _P + rb"v>([^<]*)<"
)
_BARE_FORMULA = re.compile(
    rb"<" + _P + rb"c(?![^>]*\st=[\"']str[\"'])" + _PLACE + rb"[^>]*>" + _FORMULA
    + rb"\s*(?:<" + _P + rb"v\s*/>|<" + _P + rb"v>\s*</" + _P + rb"v>)?\s*</" + _P + rb"c>"
)  # fmt: skip

CellErrors = dict[int, list[tuple[int, str]]]  # row → (column, code), both from 0


class WorkbookXml:
    """The parts of the .xlsx at `path`.

    Args:
        date1904: whether day 0 is 1 January 1904.

    Raises:
        zipfile.BadZipFile, ElementTree.ParseError, KeyError, OSError: it is none, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        book = next((t for kind, _, t in self._relations("") if kind.endswith("/officeDocument")), "xl/workbook.xml")
        targets = {key: target for _, key, target in self._relations(book)}
        self._parts: dict[str, str] = {}
        self.date1904 = False
        for element in ElementTree.fromstring(self._zip.read(book)).iter():
            tag = element.tag.rpartition("}")[2]
            attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
            if tag == "workbookPr":
                self.date1904 = attributes.get("date1904") in ("1", "true")
            elif tag == "sheet":
                self._parts[attributes["name"]] = targets[attributes["id"]]

    def _relations(self, part: str) -> list[tuple[str, str, str]]:
        folder, _, name = part.rpartition("/")
        root = ElementTree.fromstring(self._zip.read(posixpath.join(folder, "_rels", f"{name}.rels")))
        targets = [posixpath.normpath(posixpath.join("/", folder, r.get("Target", "")))[1:] for r in root]
        return [(r.get("Type", ""), r.get("Id", ""), target) for r, target in zip(root, targets, strict=True)]

    def cell_errors(self, sheet: str) -> CellErrors:
        """Return the cells of `sheet` that hold an error, or a formula without a value."""
        found: CellErrors = {}
        with self._zip.open(self._parts[sheet]) as part:
            held = part.read(_CHUNK)
            error = b"t='e'" if b" r='" in held else b't="e"'
            prefix = _ROOT.search(held)
            formula, close = (tag % (prefix[1] if prefix else b"") for tag in (b"<%bf", b"</%bc>"))
            while held:
                cells, closed, rest = held.rpartition(close)
                if error in cells:
                    for letters, row, code in _ERROR_CELL.findall(cells):
                        _note(found, letters, row, code.decode(errors="replace")[:20])
                if formula in cells:
                    for letters, row in _BARE_FORMULA.findall(cells + closed):
                        _note(found, letters, row, NEVER_CALCULATED)
                chunk = part.read(_CHUNK)
                held = rest[-_LONGEST_CELL:] + chunk if chunk else b""
        return found


def _note(found: CellErrors, letters: bytes, row: bytes, code: str) -> None:
    found.setdefault(int(row) - 1, []).append((_column(letters), code))


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1
