"""What Excel shows of a number, and formulas whose value was never stored: what the reader of an .xlsx drops."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO
from xml.etree import ElementTree

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
# ECMA-376 part 1, 18.8.30.
_BUILT_IN = {1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%"}
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]')
_CODE = re.compile(r"(?P<before>[^0#?.]*)(?P<whole>[#?0,]*[#?0])(?:\.(?P<decimals>[0#?]+))?(?P<after>[^0#?.]*)")
_REFERENCE = re.compile(r"([A-Z]+)(\d+)")


@dataclass(slots=True)
class CellFormats:
    """By (row, column) from 0: `codes` of numbers that are shown by a format; `unknown`: formulas without a value."""

    codes: dict[tuple[int, int], str] = field(default_factory=dict)
    unknown: set[tuple[int, int]] = field(default_factory=set)


def read_cell_formats(path: Path, sheet: int) -> CellFormats:
    """Read those of a sheet, counted from 0; none of a workbook that is no .xlsx."""
    found = CellFormats()
    try:
        with zipfile.ZipFile(path) as parts:
            codes = _codes(parts)
            with parts.open(_sheet_part(parts, sheet)) as xml:
                _read_sheet(xml, codes, found)
    except (zipfile.BadZipFile, KeyError, IndexError, ValueError, ElementTree.ParseError):
        return CellFormats()
    return found


def shown(value: float, code: str) -> str | None:
    """Return the number as the format shows it; None for a format that is more than digits and literals."""
    sections = [_LITERAL.sub(lambda match: match[1] or match[2] or match[3] or "", part) for part in code.split(";")]
    section, sign = sections[0], "-" if value < 0 else ""
    match = _CODE.fullmatch(section.strip())
    if match is None:
        return None
    before, whole, after = match["before"], match["whole"], match["after"]
    number = abs(value) * (100 if "%" in before + after else 1)
    decimals = match["decimals"] or ""
    digits = f"{number:,.{len(decimals)}f}" if "," in whole else f"{number:.{len(decimals)}f}"
    least = len(digits) - whole.count("0") - (len(decimals) + 1 if decimals else 0)
    digits = "0" * -least + digits
    optional = len(decimals) - len(decimals.rstrip("#?"))
    while optional and digits.endswith("0"):
        digits, optional = digits[:-1], optional - 1
    return f"{sign}{before}{digits.rstrip('.')}{after}".strip()


def _codes(parts: zipfile.ZipFile) -> list[str]:
    """Return the format code of each cell style, "" where it is General."""
    root = ElementTree.fromstring(parts.read("xl/styles.xml"))
    own = {int(one.get("numFmtId", 0)): one.get("formatCode", "") for one in root.iter(f"{_MAIN}numFmt")}
    styles = root.find(f"{_MAIN}cellXfs")
    ids = [int(style.get("numFmtId", 0)) for style in (styles if styles is not None else [])]
    return [own.get(number, _BUILT_IN.get(number, "")) for number in ids]


def _sheet_part(parts: zipfile.ZipFile, sheet: int) -> str:
    book = ElementTree.fromstring(parts.read("xl/workbook.xml"))
    identifier = list(book.iter(f"{_MAIN}sheet"))[sheet].get(_RELATION)
    relations = ElementTree.fromstring(parts.read("xl/_rels/workbook.xml.rels"))
    target = next(one.get("Target", "") for one in relations if one.get("Id") == identifier)
    return target.lstrip("/") if target.startswith("/") else str(PurePosixPath("xl") / target)


def _read_sheet(xml: IO[bytes], codes: list[str], found: CellFormats) -> None:
    for _, cell in ElementTree.iterparse(xml):
        if cell.tag == f"{_MAIN}row":
            cell.clear()
        if cell.tag != f"{_MAIN}c" or not (at := _REFERENCE.fullmatch(cell.get("r", ""))):
            continue
        place = int(at[2]) - 1, _column(at[1])
        value = cell.find(f"{_MAIN}v")
        if cell.find(f"{_MAIN}f") is not None and (value is None or not value.text) and cell.get("t") != "str":
            found.unknown.add(place)
        code = codes[style] if (style := int(cell.get("s", 0))) < len(codes) else ""
        if cell.get("t", "n") == "n" and code and code != "General":
            found.codes[place] = code


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1
