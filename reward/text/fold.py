"""One spelling for texts that are compared: full-width forms, case, spacing. Pure."""

from __future__ import annotations

import re
import unicodedata


def fold(text: str) -> str:
    """Fold full-width forms (NFKC) and case; white space stays."""
    return unicodedata.normalize("NFKC", text).lower()


def fold_without_spaces(text: str) -> str:
    """Fold full-width forms (NFKC) and case, and take out all white space."""
    return re.sub(r"\s+", "", fold(text))


def is_same_text(one: str, other: str) -> bool:
    """Whether two texts differ in width, case and spacing alone."""
    return fold_without_spaces(one) == fold_without_spaces(other)
