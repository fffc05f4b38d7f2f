"""Turns a BVT export into the SFT data set: the rewrites of the deployed rewriter that retrieved well.

    python -m data_prep.build_sft --input test_sft.xlsx --tenant fivedoctors --out data/sft/fivedoctors

In DIR, under a time stamp and again as `*_latest`: `train|val|test_<stamp>.jsonl` (canonical samples) and
`dataset_<stamp>.json` (header and manifest). Beside them: `sft_{train,val}.parquet` (verl, column `messages`),
`sft_{train,val}.jsonl` (ms-swift, messages + metadata), `stats.json`, `stats.html`, `quarantine.jsonl`.
The same input, tenant and seed give the same bytes; only names and the header carry a time.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from data_prep.artefacts import (
    MESSAGES,
    code_sha256,
    file_sha256,
    is_current,
    point_latest,
    settings_sha256,
    write_json,
    write_manifest,
    write_parquet,
)
from data_prep.augment import augment
from data_prep.bvt_row import BvtRow
from data_prep.clean import Stage, apply_filters, deduplicate, imitation_filters, normalise_row
from data_prep.messages import build_sft_messages
from data_prep.read_sources import Source, read_rows, write_quarantine
from data_prep.split import SFT_SHARES, Split, assign_split, group_key
from data_prep.stats import describe, funnel_table, read_stage, write_stats_page
from reward.records import BadInput, Sample, write_atomically, write_samples
from reward.settings import TenantSettings, load_tenant

DATASET_NAME = "sales_rag_query_rewrite_sft"
DATASET_VERSION = "1.0"
REQUIRED = ("original_query", "rewritten_query", "top1_score", "success")
_SCHEMA = pa.schema([("messages", MESSAGES)])


def build_samples(source: Source, tenant: TenantSettings, split: str, seed: int) -> tuple[list[Sample], list[Stage]]:
    """Clean, numbered samples in source order, each with its split, and the funnel that led to them.

    Args:
        split: "auto" (80/10/10 by group), or the one split that takes every row.
    """
    rows, stages = apply_filters([normalise_row(row) for row in source.rows], imitation_filters(tenant.filters))
    rows, last = deduplicate(rows, worth=lambda row: row.top1_score or 0.0)
    samples = [_sample(row, n, tenant, split, seed) for n, row in enumerate(rows, start=1)]
    return samples, [read_stage(source), *stages, last]


def _sample(row: BvtRow, n: int, tenant: TenantSettings, split: str, seed: int) -> Sample:
    fixed: dict[str, Split] = {"train": "train", "test": "test"}
    own = fixed.get(split) or assign_split(group_key(row.original_query, row.context), SFT_SHARES, seed)
    return Sample(
        sample_id=f"{tenant.short_id}_{n:03d}",
        original_query=row.original_query,
        rewritten_query=row.rewritten_query,
        context=row.context,
        metadata=row.metadata(tenant.tenant_id, own),
    )


def augment_train(samples: Sequence[Sample], tenant: TenantSettings, seed: int) -> list[Sample]:
    """Augmented copies of training samples, less those that ask what a held-out sample or another one asks."""
    taken = {group_key(s.original_query, s.context) for s in samples}
    train = [s for s in samples if s.metadata.split == "train"]
    made = augment(train, tenant.synonyms, tenant.protected_terms, seed)
    return [s for s in made if group_key(s.original_query, s.context) not in taken]


def write_dataset(
    out: Path, splits: dict[str, list[Sample]], tenant: TenantSettings, request: dict[str, Any], stats: dict[str, Any]
) -> None:
    """Everything in `out`, pointers after what they point to, the manifest last."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y%m%d_%H%M%S")
    outputs = [out / "stats.json", out / "stats.html"]
    write_json(outputs[0], stats)
    write_stats_page(outputs[1], f"SFT data of {tenant.tenant_id}", stats)
    for split, samples in splits.items():
        canonical = out / f"{split}_{stamp}.jsonl"
        write_samples(canonical, samples)
        point_latest(out / f"{split}_latest.jsonl", canonical)
        outputs.append(canonical)
        if split == "test":
            continue
        chats = [build_sft_messages(s, tenant.system_prompt) for s in samples]
        write_parquet(out / f"sft_{split}.parquet", [{"messages": chat} for chat in chats], _SCHEMA)
        swift = ({"messages": c, "metadata": s.metadata.model_dump()} for c, s in zip(chats, samples, strict=True))
        write_atomically(out / f"sft_{split}.jsonl", (json.dumps(line, ensure_ascii=False) for line in swift))
        outputs += [out / f"sft_{split}.parquet", out / f"sft_{split}.jsonl"]
    header = {
        "dataset_name": DATASET_NAME,
        "version": DATASET_VERSION,
        "tenant_id": tenant.tenant_id,
        "created_at": now.isoformat(timespec="seconds"),
        "total_samples": sum(map(len, splits.values())),
        "splits": {split: len(samples) for split, samples in splits.items()},
    }
    write_manifest(out / f"dataset_{stamp}.json", request, outputs, header)
    point_latest(out / "dataset_latest.json", out / f"dataset_{stamp}.json")


def _run(args: argparse.Namespace) -> None:
    tenant = load_tenant(args.tenant)
    if args.min_top1_score is not None:
        if not 0 <= args.min_top1_score <= 1:
            raise BadInput(f"--min-top1-score {args.min_top1_score}: outside [0, 1]")
        filters = tenant.filters.model_copy(update={"min_top1_score": args.min_top1_score})
        tenant = tenant.model_copy(update={"filters": filters})
    source = read_rows(args.input, REQUIRED)
    request = {
        "input_sha256": file_sha256(args.input),
        "tenant_sha256": settings_sha256(tenant),
        "code_sha256": code_sha256(),
        "seed": args.seed,
        "split": args.split,
        "augment": args.augment,
    }
    if not args.dry_run and is_current(args.out / "dataset_latest.json", request):
        print(f"{args.out}: up to date with {args.input}, nothing to do")
        return
    samples, funnel = build_samples(source, tenant, args.split, args.seed)
    augmented = augment_train(samples, tenant, args.seed) if args.augment else []
    names = ("train", "val", "test") if args.split == "auto" else (args.split,)
    splits = {name: [s for s in [*samples, *augmented] if s.metadata.split == name] for name in names}
    stats = describe(splits, funnel, source.quarantined)
    Console().print(funnel_table(funnel))
    counts = ", ".join(f"{name} {len(of_split)}" for name, of_split in splits.items())
    print(f"samples: {counts} ({len(augmented)} of train augmented)")
    if source.quarantined:
        first = source.quarantined[0]
        print(f"quarantined: {len(source.quarantined)} rows; the first is row {first.row}: {first.reason}")
    if not samples:
        raise BadInput(f"{args.input}: no row passes the filters of tenant {tenant.tenant_id}")
    empty = [name for name, of_split in splits.items() if not of_split]
    if empty:
        print(f"warning: no sample in {', '.join(empty)}: too few rows for an 80/10/10 split")
    if args.dry_run:
        print("dry run: nothing written")
        return
    write_quarantine(args.out / "quarantine.jsonl", source.quarantined)
    write_dataset(args.out, splits, tenant, request, stats)
    print(f"written: {args.out}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_sft",
        description="Build the SFT data set from a BVT export: clean, split, augment train; parquet for verl, JSONL "
        "for ms-swift.",
    )
    parser.add_argument("--input", type=Path, required=True, help="BVT export: .xlsx, .xls, .csv or .jsonl")
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--min-top1-score", type=float, help="instead of the tenant's filters.min_top1_score, a number in [0, 1]"
    )
    parser.add_argument("--split", choices=("auto", "train", "test"), default="auto", help="auto = 80/10/10 by group")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of augmentation (default 0)")
    parser.add_argument("--no-augment", dest="augment", action="store_false", help="no synonym-swapped copies")
    parser.add_argument("--dry-run", action="store_true", help="print the funnel, write nothing")
    try:
        _run(parser.parse_args(argv))
    except (BadInput, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
