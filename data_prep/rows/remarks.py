"""What of a usable row was passed over, in words: `column: what (which)`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

Remarks = dict[int, list[str]]  # index in the batch → what of the row was passed over
_FULL_WIDTH = str.maketrans("()", "（）")  # brackets within `which` would hide where it begins


def remark(remarks: Remarks, index: int, column: str, said: Iterable[str]) -> None:
    """Add each of `said`, such as `not understood (昨天)`."""
    for text in said:
        what, *which = text.encode(errors="replace").decode().split(" (", 1)  # half a character is no text
        shown = f" ({which[0][:-1].translate(_FULL_WIDTH)})" if which else ""
        remarks.setdefault(index, []).append(f"{column}: {what}{shown}")


def remarks_column(remarks: Remarks, count: int) -> pa.Array:
    """Return the remarks of `count` rows, as lists of strings. Few rows have any, so no list is made for the others."""
    lengths = np.zeros(count + 1, np.int32)
    for index, said in remarks.items():
        lengths[index + 1] = len(said)
    flat = [one for _, said in sorted(remarks.items()) for one in said]
    return pa.ListArray.from_arrays(np.cumsum(lengths, dtype=np.int32), pa.array(flat, pa.string()))
