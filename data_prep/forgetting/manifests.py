"""Manifests beside data sets: after rows were removed they name the files as they are now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reward.records.files import file_sha256, write_json

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
        elif "written" in manifest and name.endswith(".jsonl"):
            manifest["written"] -= rows
