"""One spelling for texts that are compared: width, script, case, spacing, invisible characters. Pure.

Gates, alarms, the measure of copying, the judge and the data preparation compare texts through this module.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from opencc import OpenCC

from plain_text.marks import bound_marks

_TO_SIMPLIFIED = OpenCC("t2s")
_LINE_BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
# Letters by category, blanks by look.
_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
# NFKC writes "1½" as "11⁄2".
_VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼½¾⅐-⅞])")
_SPACES = re.compile(r"\s+")
# Text that only script and case can change, and its folding no second time.
_PLAIN = re.compile(r"[ -~\n、。\u4e00-\u9fff]*")
_EMOJI_JOINERS = "\u200d\ufe0e\ufe0f\u20e3"


class _Kept(dict[int, str | None]):
    """For `str.translate`: what has no look goes, every line break is a newline, every other space a blank.

    Filled as characters are met.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept: str | None = character
        if character in _LINE_BREAKS:
            kept = "\n"
        elif character in "\t ":
            kept = " "
        elif is_invisible(character) or unicodedata.category(character) in ("Mn", "Me"):
            kept = None
        elif unicodedata.category(character) == "Zs":
            kept = " "
        self[code] = kept
        return kept


_KEPT = _Kept()


def is_invisible(character: str) -> bool:
    """Whether a character shows nothing: a control, format, surrogate, private-use or unassigned one, a filler, a
    variation selector. White space is none."""
    if character in _FILLERS or "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
        return True
    return character == "\u034f" or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn")


def invisible_characters(text: str) -> set[str]:
    """The invisible characters and the line breaks of a text; what joins or styles emoji is left out."""
    if _PLAIN.fullmatch(text) and "\n" not in text:
        return set()
    hidden = {c for c in set(text) if c in _LINE_BREAKS or (c != "\t" and is_invisible(c))}
    if any(unicodedata.category(c) == "So" for c in set(text)):
        hidden -= set(_EMOJI_JOINERS)
    return hidden


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Fold compatibility forms (NFKC), Traditional characters and case; take out what is invisible.

    White space stays; every line break becomes a newline, every other space a blank. Folding twice changes nothing.
    """
    if text.isascii() and text.isprintable():
        return text.lower()
    if _PLAIN.fullmatch(text):
        return _TO_SIMPLIFIED.convert(text).lower()
    folded = _once(text)
    # Later passes see what the first one uncovers, such as a letter that loses its accent.
    return folded if _PLAIN.fullmatch(folded) else _once(_once(folded))


def _once(text: str) -> str:
    spaced = _VULGAR_FRACTION.sub(" ", text) if max(text, default="") >= "¼" else text
    visible = unicodedata.normalize("NFKC", bound_marks(spaced)).translate(_KEPT)
    return _TO_SIMPLIFIED.convert(visible).casefold()


def fold_without_spaces(text: str) -> str:
    """Fold a text and take out all white space."""
    return _SPACES.sub("", fold(text))


def is_same_text(one: str, other: str) -> bool:
    """Whether two texts differ in width, script, case, spacing and invisible characters alone."""
    return fold_without_spaces(one) == fold_without_spaces(other)
