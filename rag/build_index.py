"""Build the search index of one tenant's knowledge base.

    python -m rag.build_index --kb_dir knowledge/fivedoctors --out indexes/fivedoctors --tenant fivedoctors

`--kb_dir` holds a BEIR corpus.jsonl (one passage a document) or .txt files (a passage a paragraph or line, cut at
sentence ends to 300 characters). The index is built beside `--out` and renamed into place once it is complete; a
service that has the earlier one open keeps answering from it until it restarts. Nothing is done when `--out` already
holds the same passages indexed by the same code.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from rag.embedder import HashingEmbedder
from rag.ingest import IngestError, Passage, content_hash, read_passages
from rag.manifest import EMBEDDER, MANIFEST, SHARD, Manifest, read_manifest
from rag.store import STORE_ID, write_shard
from rag.tokenizer import TOKENIZER_ID, load_dictionary


def build_index(kb_dir: Path, out: Path, tenant_id: str, kb_name: str = "default") -> tuple[Manifest, bool]:
    """Build the index of `kb_dir` at `out` unless it is there already; returns its manifest and whether it was built.

    Raises:
        IngestError: nothing to index, or `out` exists and is no index.
    """
    passages = read_passages(kb_dir)
    wanted = Manifest(
        tenant_id=tenant_id,
        kb_name=kb_name,
        passages=len(passages),
        content_hash=content_hash(passages),
        embedder_id=HashingEmbedder.id,
        embedder_dimension=HashingEmbedder.dimension,
        tokenizer_id=TOKENIZER_ID,
        store_id=STORE_ID,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("qdrant-edge-py", "jieba", "scikit-learn", "numpy")},
        },
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if _is_current(out, wanted):
        return wanted, False
    # An index, or an empty folder, may be replaced; anything else is somebody's data.
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise IngestError(f"{out}: exists and is no index: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_index(partial, passages, wanted)
        _swap(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return wanted, True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rag.build_index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb_dir", type=Path, required=True, help="folder with corpus.jsonl or .txt files")
    parser.add_argument("--out", type=Path, required=True, help="folder of the index, created or replaced")
    parser.add_argument("--tenant", required=True, help="tenant_id that requests will name")
    parser.add_argument("--kb_name", default="default", help="knowledge base name (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        manifest, built = build_index(args.kb_dir, args.out, args.tenant, args.kb_name)
    except (IngestError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    state = "built" if built else "up to date"
    print(f"{args.out}: {manifest.tenant_id}/{manifest.kb_name}, {manifest.passages} passages, {state}")
    return 0


def _is_current(out: Path, wanted: Manifest) -> bool:
    try:
        return read_manifest(out).made_like(wanted) and (out / SHARD).is_dir() and (out / EMBEDDER).is_file()
    except IngestError:
        return False


def _write_index(folder: Path, passages: Sequence[Passage], manifest: Manifest) -> None:
    load_dictionary()
    texts = [passage.content for passage in passages]
    embedder = HashingEmbedder.fit(texts)
    embedder.save(folder / EMBEDDER)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("indexing", total=1.0)
        for share in write_shard(folder / SHARD, passages, embedder, manifest.tenant_id, manifest.kb_name):
            progress.update(task, completed=share)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    folder.chmod(0o755)  # mkdtemp makes it private


def _swap(partial: Path, out: Path) -> None:
    """Put `partial` in the place of `out`; on failure the earlier index is put back."""
    earlier = partial.with_name(partial.name + ".earlier")
    if out.exists():
        os.rename(out, earlier)
    try:
        os.rename(partial, out)
    except OSError:
        if earlier.exists():
            os.rename(earlier, out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
