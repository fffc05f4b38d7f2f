"""Files that appear whole or not at all, and the manifest beside them that says what made them.

A manifest holds `request` (what was asked: hashes of input, settings and code, the options) and `outputs` (name →
SHA-256). A command whose manifest still matches has nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

import data_prep
import guard.personal
import plain_text
import reward.records
import reward.text
from reward.records.files import file_sha256, replacing, write_json

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_LIBRARIES = ("sales-rag-rewriter", "duckdb", "jieba", "pyarrow", "python-calamine", "xlsxwriter")
_ROW_GROUP = 10_000


def settings_sha256(settings: BaseModel) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


def code_sha256() -> str:
    """Hash this package, and the records, masks and text rules that it uses: an edited filter is another build."""
    used = (data_prep, guard.personal, plain_text, reward.records, reward.text)
    packages = [Path(path) for package in used for path in package.__path__]
    files = [file for package in packages for file in sorted(package.rglob("*.py"))]
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


@contextmanager
def writing_parquet(path: Path, schema: pa.Schema) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what appends a row to `path`, which appears once the block ends well; without rows it holds the schema
    alone."""
    waiting: list[dict[str, Any]] = []
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as out:

        def flush() -> None:
            out.write_table(pa.Table.from_pylist(waiting, schema=schema))
            waiting.clear()

        def append(row: dict[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) == _ROW_GROUP:
                flush()

        yield append
        flush()


def point_latest(pointer: Path, target: Path) -> None:
    """Make `pointer` a link to its neighbour `target`; a reader sees the earlier target or the new one."""
    with replacing(pointer) as partial:
        partial.unlink(missing_ok=True)
        os.symlink(target.name, partial)


def write_manifest(path: Path, request: dict[str, Any], outputs: Sequence[Path], header: dict[str, Any]) -> None:
    """Write the manifest, after everything else: `header` first, which people look for; `outputs` are beside the
    manifest."""
    hashes = {output.name: file_sha256(output) for output in outputs}
    write_json(path, {**header, "request": request, "versions": versions(), "outputs": hashes})


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read a manifest; None when there is none, or none that can be read."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return manifest if isinstance(manifest, dict) else None


def is_current(path: Path, request: dict[str, Any]) -> bool:
    """Return whether the manifest answers `request` and all its outputs are still what they were."""
    manifest = read_manifest(path)
    if manifest is None or manifest.get("request") != request:
        return False
    outputs: dict[str, str] = manifest.get("outputs", {})
    files = {path.parent / name: digest for name, digest in outputs.items()}
    return all(file.is_file() and file_sha256(file) == digest for file, digest in files.items())
