"""What of a usable row was passed over, in words: `column: what (which)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Remarks = dict[int, list[str]]  # index in the batch → what of the row was passed over
_DETAILS = 5  # that a line names
_SPLIT = re.compile(r"(.*?)(?: \(([^()]*)\))?", re.DOTALL)
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


def said(found: Mapping[str, Any]) -> str:
    """Say in one line what was passed over: `what`, its `count` and `details`, and the first `row` of which `file`."""
    details = f" ({', '.join(found['details'])})" if found["details"] else ""
    return f"passed over: {found['what']}: {found['count']}{details}, first in row {found['row']} of {found['file']}"


@dataclass
class _Kind:
    row: int
    file: str
    count: int = 0
    details: set[str] = field(default_factory=set)


class PassedOver:
    """Count what of usable rows was passed over, by column and kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the remarks of a batch that has the columns file, row, refused and remarks."""
        usable = batch.filter(pc.equal(batch.column("refused"), ""))
        remarked = usable.filter(pc.greater(pc.fill_null(pc.list_value_length(usable.column("remarks")), 0), 0))
        for row in remarked.select(["file", "row", "remarks"]).to_pylist():
            for text in row["remarks"]:
                parts = _SPLIT.fullmatch(text)
                what, which = parts.groups() if parts else (text, None)
                kind = self._kinds.setdefault(what, _Kind(row["row"], row["file"]))
                kind.count += 1
                if which and len(kind.details) < _DETAILS:
                    kind.details.add(which)

    def lines(self) -> list[str]:
        """Return a line for each kind, the commonest first."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1].count, item[0]))
        return [said(vars(kind) | {"what": what, "details": sorted(kind.details)}) for what, kind in kinds]
