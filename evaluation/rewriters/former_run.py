"""Rewrites of an earlier comparison: a system of its `rewrites.jsonl` competes again, without being asked again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.summary import REWRITES_FILE
from reward.records.call import FailureKind, ServiceFailure
from reward.records.files import BadInput, read_jsonl
from reward.records.sample import Sample


def former_run(path: Path, system: str) -> tuple[Path | None, str]:
    """Read FOLDER or FOLDER:SYSTEM; None where `path` is no folder.

    Args:
        system: its name there where `path` names none.
    """
    if path.is_dir():
        return path, system
    folder, found, named = str(path).rpartition(":")
    return (Path(folder), named) if found and Path(folder).is_dir() else (None, system)


def rewrite_by_former_run(samples: Sequence[Sample], folder: Path, system: str) -> list[str | ServiceFailure]:
    """Return what `system` wrote for each sample in the comparison in `folder`; a failure where it had failed there.

    Raises:
        BadInput: no such comparison or system, a sample is missing, or its query was another one.
    """
    rows = {str(row.get("sample_id")): row for _, row in read_jsonl(folder / REWRITES_FILE)}
    rewrites: list[str | ServiceFailure] = []
    missing = [sample.sample_id for sample in samples if sample.sample_id not in rows]
    if missing:
        raise BadInput(f"{folder}: compared no sample {missing[0]} ({len(missing)} of {len(samples)} samples)")
    for sample in samples:
        row = rows[sample.sample_id]
        if row.get("query") != sample.original_query or row.get("context") != sample.context.text:
            raise BadInput(f"{folder}: sample {sample.sample_id} had another query or context there")
        systems = row.get("systems") or {}
        if system not in systems:
            raise BadInput(f"{folder}: has no system {system!r} (there are: {', '.join(systems)})")
        rewrite = systems[system].get("rewrite")
        failed = ServiceFailure("it had no rewrite in the former run", FailureKind.NOT_CONFIGURED)
        rewrites.append(rewrite if isinstance(rewrite, str) else failed)
    return rewrites
