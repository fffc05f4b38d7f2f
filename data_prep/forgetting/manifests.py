"""Manifests beside data sets: after rows were removed they name the files as they are now."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reward.records.files import file_sha256, write_json

_RECORDS = ("round.json", "release.json")
_DEEPEST = 5  # folders up from a record to the one that its paths begin at
_CANONICAL = re.compile(r"(?:rl_)?(train|val|test)(?:_\d{8}_\d{6})?\.jsonl")


def renew_manifests(folder: Path, removed: Mapping[Path, int]) -> list[Path]:
    """Write hashes and counts anew in every manifest of `folder` that names a file of which rows were removed.

    What was asked for stays as it is: the same build again finds its data set up to date, and does not bring the person
    back. `forgotten` says when how many rows went.

    Returns:
        The manifests that changed.
    """
    changed = []
    for path in sorted(folder.glob("*.json")):
        manifest = None if path.is_symlink() else _read(path)
        outputs = manifest.get("outputs") if manifest else None
        if manifest is None or not isinstance(outputs, dict):
            continue
        gone = {name: removed[folder / name] for name in outputs if removed.get(folder / name)}
        if not gone:
            continue
        manifest["outputs"] = {name: file_sha256(folder / name) for name in outputs if (folder / name).is_file()}
        _count_down(manifest, gone)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["forgotten"] = [*manifest.get("forgotten", []), {"at": now, "rows": gone}]
        write_json(path, manifest)
        changed.append(path)
    return changed


def renew_records(files: Sequence[Path], removed: Collection[Path]) -> list[Path]:
    """Write hashes anew in every record of a round or a release that names a changed file, by a path below one of the
    record's own folders.

    Returns:
        The records that changed.
    """
    changed = []
    beside = {folder / name for path in removed for folder in path.parents[:1] for name in _RECORDS}
    for path in sorted({*(file for file in files if file.name in _RECORDS), *beside}):
        record = _read(path) if path.is_file() and not path.is_symlink() else None
        hashes = record.get("files") if record else None
        if record is None or not isinstance(hashes, dict):
            continue
        gone = sorted(name for name in hashes if any(folder / name in removed for folder in path.parents[:_DEEPEST]))
        if not gone:
            continue
        base = next(folder for folder in path.parents if folder / gone[0] in removed)
        record["files"] = hashes | {name: file_sha256(base / name) for name in gone}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record["forgotten"] = [*record.get("forgotten", []), {"at": now, "files": gone}]
        write_json(path, record)
        changed.append(path)
    return changed


def _read(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def _count_down(manifest: dict[str, Any], gone: Mapping[str, int]) -> None:
    splits = manifest.get("splits")
    for name, rows in gone.items():
        canonical = _CANONICAL.fullmatch(name)
        if canonical and isinstance(splits, dict) and canonical[1] in splits:
            splits[canonical[1]] -= rows
            manifest["total_samples"] = sum(splits.values())
        elif manifest.get("dataset") == "medical_rl":
            _count_medical(manifest, name, rows)
        elif "written" in manifest and name.endswith(".jsonl"):
            manifest["written"] -= rows


def _count_medical(manifest: dict[str, Any], name: str, rows: int) -> None:
    """Count down what a medical prompt set says of its files."""
    of_set = re.fullmatch(r"eval_(\w+)\.jsonl", name)
    if name == "training_prompts.jsonl":
        manifest["training_prompts"] -= rows
    elif re.fullmatch(r"sft_(?:train|val)\.jsonl", name):
        manifest["sft_samples"] -= rows
    elif of_set and of_set[1] in manifest.get("evaluation", {}):
        manifest["evaluation"][of_set[1]] -= rows
