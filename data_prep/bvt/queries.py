"""The questions of a BVT batch test, from files of any readable kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data_prep.bvt.row import BvtRow
from data_prep.readers.sources import Sources, Unreadable
from data_prep.rows.remarks import PassedOver
from data_prep.text.cleaning import FREE_TEXTS, clean_batch
from reward.records.files import BadInput
from reward.settings.recipe import TenantSettings

_ASKED = ("original_query", "user_profile", "history_summary", "history_context", "query_id", "slices")
_REFUSED = ("file", "sheet", "row", "refused")


@dataclass(frozen=True)
class Queries:
    """The questions found in some files. `quarantined`: file, sheet, row and reason of each row that cannot be
    asked; `notes`: what else a user should know of the files; `passed_over`: of the rows that are asked."""

    files: list[Path]
    rows: list[BvtRow]
    quarantined: list[dict[str, Any]]
    unreadable: list[Unreadable]
    notes: list[str]
    passed_over: list[str]

    @property
    def accounts(self) -> dict[str, int]:
        asked, left_out = len(self.rows), len(self.quarantined)
        return {"rows_in": asked + left_out, "asked": asked, "quarantined": left_out}


def read_queries(paths: Sequence[Path], tenant: TenantSettings) -> Queries:
    """Read the questions of all files, cleaned and de-identified; recorded answers are left out.

    Raises:
        BadInput: no file could be read, or no row can be asked.
    """
    sources = Sources(paths, tenant.sources, ("original_query",))
    rows: list[BvtRow] = []
    quarantined: list[dict[str, Any]] = []
    passed_over = PassedOver()
    for raw in sources.batches():
        batch, _ = clean_batch(raw, FREE_TEXTS, tenant.deidentify)
        usable = pc.equal(batch.column("refused"), "")
        rows += [_question(values) for values in batch.filter(usable).select(_ASKED).to_pylist()]
        passed_over.add(batch)
        for refused in batch.filter(pc.invert(usable)).select(_REFUSED).to_pylist():
            reason = refused.pop("refused")
            quarantined.append(refused | {"reason": reason})
    if not rows:
        first = "row {row} of {file}: {reason}".format_map(quarantined[0]) if quarantined else "there is no row"
        raise BadInput(f"{', '.join(map(str, paths))}: no query can be asked; {first}")
    return Queries(sources.files, rows, quarantined, sources.unreadable, sources.notes, passed_over.lines())


def _question(values: dict[str, Any]) -> BvtRow:
    return BvtRow(**values | {"slices": tuple(values["slices"] or ())})
