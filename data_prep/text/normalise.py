"""One spelling for the same text, in training, evaluation and serving alike. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from guard.personal.normal_form import normalise_line, normalise_lines

__all__ = ["SETTLED", "normalise_column", "normalise_line", "normalise_lines"]


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
_WORD = "[" + "".join(f"\\x{{{ord(first):x}}}-\\x{{{ord(last):x}}}" for first, last in SETTLED) + "]+"
_SETTLED_LINE = f"^(?:{_WORD}(?: {_WORD})*)?$"
_SETTLED_LINES = f"^(?:{_WORD}(?:[ \\n]{_WORD})*)?$"


def normalise_column(texts: pa.Array, *, keep_lines: bool) -> pa.Array:
    """Apply `normalise_lines` (or, without `keep_lines`, `normalise_line`) to each text; a missing text becomes "".

    Args:
        texts: Arrow strings.

    Returns:
        As many strings, in the same order.
    """
    texts = pc.fill_null(texts, "")
    settled = pc.match_substring_regex(texts, _SETTLED_LINES if keep_lines else _SETTLED_LINE)
    rest = pc.invert(settled)
    normalise = normalise_lines if keep_lines else normalise_line
    normalised = [normalise(text) for text in texts.filter(rest).to_pylist()]
    return pc.replace_with_mask(texts, rest, pa.array(normalised, texts.type))
