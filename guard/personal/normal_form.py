"""One spelling for the same text. Pure."""

from __future__ import annotations

import re
import unicodedata

from plain_text.marks import bound_marks

# Full-width letters, digits and space come from Chinese keyboards; full-width punctuation is proper Chinese and stays.
_HALF_WIDTH = {c: c - 0xFEE0 for r in (range(0xFF10, 0xFF1A), range(0xFF21, 0xFF3B), range(0xFF41, 0xFF5B)) for c in r}
_HALF_WIDTH[0x3000] = ord(" ")
# First and last of the characters that stay as they are in any order: no spaces, controls or format characters, and
# none that NFC changes, moves or joins to the one before. Most texts hold nothing else, and those need no work.
SETTLED = (
    ("!", "~"),
    ("\u00a1", "\u00ac"),
    ("\u00ae", "\u02ff"),  # Latin with its accents built in
    ("\u03b1", "\u03c9"),  # α to ω
    ("\u2010", "\u2027"),  # dashes, quotes, the ellipsis
    ("\u2103", "\u2103"),  # ℃
    ("\u2460", "\u24ff"),  # ①
    ("\u3001", "\u3029"),  # 、。〈〉《》
    ("\u4e00", "\u9fff"),
    ("\uff01", "\uff0f"),  # full-width punctuation, around the letters and digits
    ("\uff1a", "\uff20"),
    ("\uff3b", "\uff40"),
    ("\uff5b", "\uff60"),
    ("\U0001f300", "\U0001faff"),  # emoji
)
_WORD = "[" + "".join(re.escape(first) + "-" + re.escape(last) for first, last in SETTLED) + "]++"
_SETTLED_LINES = re.compile(f"(?:{_WORD}(?:[ \\n]{_WORD})*+)?")
_SPACES = re.compile(r"[^\S\n]+")


def normalise_lines(text: str) -> str:
    """Write text in one way: NFC, half-width letters and digits, no control or zero-width characters, single spaces
    (also for VT, FF, NEL and the separators FS to US),
    trimmed lines, no blank lines. Idempotent."""
    return text if _SETTLED_LINES.fullmatch(text) else rewritten_lines(text)


def rewritten_lines(text: str) -> str:
    """Do what `normalise_lines` does for a text that may not be settled."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_HALF_WIDTH)
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    text = unicodedata.normalize("NFC", bound_marks(text))
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def normalise_line(text: str) -> str:
    """Apply `normalise_lines` and join the lines: line breaks become spaces."""
    return normalise_lines(text).replace("\n", " ")
