"""One spelling for the same text, in training, evaluation and serving alike. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from guard.personal.normal_form import SETTLED, normalise_line, normalise_lines

__all__ = ["SETTLED", "normalise_column", "normalise_line", "normalise_lines"]


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
