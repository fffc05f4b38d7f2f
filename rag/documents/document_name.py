"""What a document may be called. Names are no paths that anything opens; they appear in URLs, logs and pages."""

from __future__ import annotations

import re
import unicodedata

from plain_text.marks import bound_marks
from rag.documents.records import IngestError

LONGEST_NAME = 512  # characters
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DRIVE = re.compile("[A-Za-z]:")


def is_fit(name: str) -> bool:
    """Return whether `name` is of 1 to `LONGEST_NAME` characters, none of which controls a terminal or breaks a
    line."""
    return 0 < len(name) <= LONGEST_NAME and not _UNFIT.search(name)


def document_name(name: str) -> str:
    """Return `name` as a relative path with `/`, in NFC.

    Raises:
        IngestError: not `is_fit`, absolute, or with a `..`.
    """
    shown = ascii(name[:80])
    if not is_fit(name):
        raise IngestError(f"{shown}: a document's name has 1 to {LONGEST_NAME} characters, no control characters")
    parts = [
        part for part in unicodedata.normalize("NFC", bound_marks(name)).replace("\\", "/").split("/") if part != "."
    ]
    normal = "/".join(parts)
    if ".." in parts or "" in parts or normal.strip() != normal or not is_fit(normal) or _DRIVE.match(normal):
        raise IngestError(f"{shown}: a document's name is a relative path without '..'")
    return normal
