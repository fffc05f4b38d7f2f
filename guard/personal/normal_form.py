"""One spelling for the same text. Pure."""

from __future__ import annotations

import re
import unicodedata

from plain_text.marks import bound_marks

# Full-width letters, digits and space come from Chinese keyboards; full-width punctuation is proper Chinese and stays.
_HALF_WIDTH = {c: c - 0xFEE0 for r in (range(0xFF10, 0xFF1A), range(0xFF21, 0xFF3B), range(0xFF41, 0xFF5B)) for c in r}
_HALF_WIDTH[0x3000] = ord(" ")
_SPACES = re.compile(r"[^\S\n]+")


def normalise_lines(text: str) -> str:
    """Write text in one way: NFC, half-width letters and digits, no control or zero-width characters, single spaces
    (also for VT, FF, NEL and the separators FS to US),
    trimmed lines, no blank lines. Idempotent."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_HALF_WIDTH)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    text = unicodedata.normalize("NFC", bound_marks(text))
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def normalise_line(text: str) -> str:
    """Apply `normalise_lines` and join the lines: line breaks become spaces."""
    return normalise_lines(text).replace("\n", " ")
