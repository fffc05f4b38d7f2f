"""Truth values, in the words that people and programs write for them."""

from __future__ import annotations

import unicodedata

from plain_text.marks import BLANKS, bound_marks

_TRUE = frozenset(("true", "1", "1.0", "yes", "y", "ok", "success", "是", "成功", "对", "真", "√", "✓"))
_FALSE = frozenset(("false", "0", "0.0", "no", "n", "fail", "failed", "failure", "否", "失败", "错", "假", "×", "✗"))
_SHOWN = 40  # characters of a bad text that its reason repeats


def read_truth(text: str) -> bool | None:
    """Return what `text` says, None when it is blank.

    Raises:
        ValueError: it says neither true nor false.
    """
    plain = unicodedata.normalize("NFKC", bound_marks(text)).strip(BLANKS).lower()
    if plain and plain not in _TRUE | _FALSE:
        raise ValueError(f"neither true nor false: {text[:_SHOWN]!r}")
    return plain in _TRUE if plain else None
