"""Text that a program can read and nobody else."""

from __future__ import annotations

import re
import unicodedata

# Bullets of symbol fonts are private-use characters too: some of them are no sign of anything.
_MOST_SIGNS, _MOST_HIGH_LATIN, _MOST_TWICE_DECODED = 0.1, 0.25, 0.3  # shares of the characters
_HAN = re.compile("[\u4e00-\u9fff]")
_HIGH_LATIN = re.compile("[\x80-\xff\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u2018-\u201e\u2020-\u2022\u20ac]")
_LOST = re.compile("锟斤拷|锟斤|斤拷|烫烫烫|屯屯屯")


def unreadable(text: str) -> str:
    """Say in two words why a text is no text; "" when it can be read.

    A font without a table of its characters gives private-use or replacement characters; bytes read in a wrong
    encoding give accented Latin letters (UTF-8 or GBK as Latin-1) or rare Chinese ones (UTF-8 as GBK).
    """
    seen = "".join(text.split())
    if not seen:
        return ""
    if len(_HIGH_LATIN.findall(seen)) > _MOST_HIGH_LATIN * len(seen):
        return "garbled (a wrong encoding)"
    signs = sum(character == "\ufffd" or unicodedata.category(character) in ("Co", "Cn", "Cc") for character in seen)
    if signs > _MOST_SIGNS * len(seen):
        return "without characters (private-use or replacement signs)"
    han = len(_HAN.findall(seen))
    again = seen.encode("gb18030", "ignore").decode("utf-8", "ignore")
    lost = sum(len(match) for match in _LOST.findall(seen))
    if han and (len(_HAN.findall(again)) > _MOST_TWICE_DECODED * han or lost > _MOST_SIGNS * han):
        return "garbled (a wrong encoding)"
    return ""
