"""Which number formats of an .xlsx show a number as a moment or as a duration."""

from __future__ import annotations

import re
from xml.etree import ElementTree

MOMENT, DURATION = "moment", "duration"
# ECMA-376, part 1, 18.8.30: formats that every workbook has.
_BUILT_IN = dict.fromkeys((*range(14, 23), *range(27, 37), 45, 47, *range(50, 59)), MOMENT) | {46: DURATION}
_NOT_SHOWN = re.compile(r'"[^"]*"|\\.|_.|\*.')
_ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)
_BRACKETS = re.compile(r"\[[^\]]*\]")
_PARTS = re.compile(r"[ymdhs]", re.IGNORECASE)


def date_styles(styles: bytes) -> dict[bytes, str]:
    """Return cell style (as a cell names it) → MOMENT or DURATION, for the styles that are either.

    Args:
        styles: the XML part.

    Raises:
        ElementTree.ParseError: it is no XML.
    """
    custom: dict[int, str | None] = {}
    found: dict[bytes, str] = {}
    for element in (root := ElementTree.fromstring(styles)).iter():
        if element.tag.rpartition("}")[2] == "numFmt" and element.get("numFmtId", "").isdecimal():
            custom[int(element.get("numFmtId", ""))] = _shows(element.get("formatCode", ""))
    for group in root:
        if group.tag.rpartition("}")[2] == "cellXfs":
            for number, style in enumerate(group):
                text = style.get("numFmtId", "0")
                key = int(text) if text.isdecimal() else 0
                shown = custom[key] if key in custom else _BUILT_IN.get(key)
                if shown:
                    found[str(number).encode()] = shown
    return found


def _shows(code: str) -> str | None:
    first = _NOT_SHOWN.sub("", code).split(";")[0]
    if _ELAPSED.search(first):
        return DURATION
    plain = _BRACKETS.sub("", first)
    return MOMENT if _PARTS.search(plain) and not plain.lower().startswith("general") else None
