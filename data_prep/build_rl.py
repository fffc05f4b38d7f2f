"""Turns a BVT export into the RL data set: queries to compete on, each with the rewrite of the deployed rewriter.

    python -m data_prep.build_rl --input test_sft.xlsx --tenant fivedoctors --out data/rl/fivedoctors
    python -m data_prep.build_rl --input held_out.xlsx --tenant fivedoctors --out data/rl/fivedoctors --split test

In DIR, for each split built: `rl_<split>.jsonl` (canonical samples, each once), `rl_<split>.parquet` (verl); and
`rl_dataset_<mode>.json` (header, funnel and manifest), `rl_quarantine_<mode>.jsonl`. `--split auto` makes train and
val, 90/10 by group: the test split comes from a BVT run of its own, over queries that nobody trained on. A fixed split
takes every row and leaves the other splits' files alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
    settings_sha256,
    write_manifest,
    write_parquet,
)
from data_prep.bvt_row import BvtRow
from data_prep.clean import Stage, apply_filters, competition_filters, deduplicate, normalise_row
from data_prep.messages import build_messages
from data_prep.read_sources import Source, read_rows, write_quarantine
from data_prep.split import RL_SHARES, Split, assign_split, group_key
from data_prep.stats import funnel_table, read_stage
from reward.records import BadInput, Candidates, RetrievalResults, Sample, write_samples
from reward.settings import TenantSettings, load_tenant

DATASET_NAME = "sales_rag_query_rewrite_rl"
DATASET_VERSION = "1.0"
REQUIRED = ("original_query", "rewritten_query", "success")
_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string()), ("sample", pa.string())])),
    ]
)


def read_qrels(path: Path) -> dict[str, tuple[str, ...]]:
    """query id → ids of its relevant documents (score > 0), from a BEIR `qrels.tsv` (query-id, corpus-id, score).

    Raises:
        BadInput: no such file, or a line is not three tab-separated fields with a numeric score.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    relevant: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as text:
        for row, fields in enumerate(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
            if not fields or (row == 1 and fields[0] == "query-id"):
                continue
            try:
                query_id, doc_id, score = fields
                if float(score) > 0:
                    relevant.setdefault(query_id, []).append(doc_id)
            except ValueError:
                raise BadInput(f"{path}: row {row}: expected query-id, corpus-id, score") from None
    return {query_id: tuple(doc_ids) for query_id, doc_ids in relevant.items()}


def build_samples(
    source: Source, tenant: TenantSettings, qrels: Mapping[str, tuple[str, ...]], split: str, seed: int
) -> tuple[list[Sample], list[Stage]]:
    """Clean, numbered samples in source order, each with its split, and the funnel that led to them.

    Args:
        split: "auto" (train/val 90/10 by group), or the one split that takes every row.
    """
    rows, stages = apply_filters([normalise_row(row) for row in source.rows], competition_filters(tenant.filters))
    rows, last = deduplicate(rows, worth=lambda row: bool(row.rewritten_query))
    samples = [_sample(row, n, tenant, qrels, split, seed) for n, row in enumerate(rows, start=1)]
    return samples, [read_stage(source), *stages, last]


def _sample(
    row: BvtRow, n: int, tenant: TenantSettings, qrels: Mapping[str, tuple[str, ...]], split: str, seed: int
) -> Sample:
    fixed: dict[str, Split] = {"train": "train", "test": "test"}
    own = fixed.get(split) or assign_split(group_key(row.original_query, row.context), RL_SHARES, seed)
    return Sample(
        sample_id=f"{tenant.short_id}_rl_{n:03d}",
        original_query=row.original_query,
        context=row.context,
        metadata=row.metadata(tenant.tenant_id, own),
        candidates=Candidates(baseline=row.rewritten_query),
        retrieval_results=RetrievalResults(baseline=row.recall_results),
        relevant_doc_ids=qrels.get(row.query_id, ()),
    )


def is_hard(sample: Sample) -> bool:
    """Whether the deployed rewriter's first recorded hit is known to be irrelevant: there is something to win."""
    hits = sample.retrieval_results.baseline
    return bool(sample.relevant_doc_ids) and not (hits and hits[0].doc_id in sample.relevant_doc_ids)


def repeat_hard(samples: Sequence[Sample], share: float) -> list[Sample]:
    """The samples, then the hard ones again, whole, as often as brings their share of all rows closest to `share`.

    Prompts that both rewriters get right teach a competition nothing; it learns faster where the deployed one fails.
    """
    hard = [sample for sample in samples if is_hard(sample)]
    if not hard or not share:
        return list(samples)
    easy = len(samples) - len(hard)
    times = round(share * easy / ((1 - share) * len(hard)))
    return [*samples, *hard * max(0, times - 1)]


def parquet_row(sample: Sample, index: int, tenant: TenantSettings) -> dict[str, Any]:
    """One row of verl's RL parquet; `Sample.from_extra_info` turns its `extra_info` into `sample` again."""
    return {
        "data_source": f"{tenant.tenant_id}_rewrite",
        "prompt": build_messages(sample, tenant.system_prompt),
        "ability": "rewrite",
        "reward_model": {"style": "rule", "ground_truth": sample.candidates.baseline},
        "extra_info": sample.to_extra_info(index),
    }


def write_dataset(
    out: Path,
    mode: str,
    splits: dict[str, list[Sample]],
    tenant: TenantSettings,
    request: dict[str, Any],
    funnel: Sequence[Stage],
    hard_share: float,
) -> None:
    """Everything in `out`, the manifest last."""
    outputs = []
    for split, samples in splits.items():
        jsonl, parquet = out / f"rl_{split}.jsonl", out / f"rl_{split}.parquet"
        write_samples(jsonl, samples)
        rows = repeat_hard(samples, hard_share) if split == "train" else samples
        write_parquet(parquet, [parquet_row(s, i, tenant) for i, s in enumerate(rows)], _SCHEMA)
        outputs += [jsonl, parquet]
    header = {
        "dataset_name": DATASET_NAME,
        "version": DATASET_VERSION,
        "tenant_id": tenant.tenant_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "total_samples": sum(map(len, splits.values())),
        "splits": {split: len(samples) for split, samples in splits.items()},
        "funnel": [asdict(stage) for stage in funnel],
    }
    write_manifest(out / f"rl_dataset_{mode}.json", request, outputs, header)


def _run(args: argparse.Namespace) -> None:
    if not 0 <= args.hard_share < 1:
        raise BadInput(f"--hard-share {args.hard_share}: outside [0, 1)")
    tenant = load_tenant(args.tenant)
    source = read_rows(args.input, REQUIRED if args.qrels is None else (*REQUIRED, "query_id"))
    qrels = {} if args.qrels is None else read_qrels(args.qrels)
    request = {
        "input_sha256": file_sha256(args.input),
        "qrels_sha256": None if args.qrels is None else file_sha256(args.qrels),
        "tenant_sha256": settings_sha256(tenant),
        "code_sha256": code_sha256(),
        "seed": args.seed,
        "split": args.split,
        "hard_share": args.hard_share,
    }
    if is_current(args.out / f"rl_dataset_{args.split}.json", request):
        print(f"{args.out}: up to date with {args.input}, nothing to do")
        return
    samples, funnel = build_samples(source, tenant, qrels, args.split, args.seed)
    names = ("train", "val") if args.split == "auto" else (args.split,)
    splits = {name: [s for s in samples if s.metadata.split == name] for name in names}
    Console().print(funnel_table(funnel))
    judged = sum(bool(s.relevant_doc_ids) for s in samples)
    hard = sum(map(is_hard, splits.get("train", [])))
    missing = sum(not s.candidates.baseline for s in samples)
    counts = ", ".join(f"{name} {len(of_split)}" for name, of_split in splits.items())
    print(f"samples: {counts}; with relevant documents {judged}; without a recorded rewrite {missing}")
    if args.hard_share:
        rows = len(repeat_hard(splits.get("train", []), args.hard_share))
        print(f"hard prompts: {hard} of train, repeated to {rows} training rows")
    if source.quarantined:
        first = source.quarantined[0]
        print(f"quarantined: {len(source.quarantined)} rows; the first is row {first.row}: {first.reason}")
    if not samples:
        raise BadInput(f"{args.input}: no row passes the filters of tenant {tenant.tenant_id}")
    if qrels and not judged:
        raise BadInput(f"{args.qrels}: holds none of the query_ids of {args.input}")
    empty = [name for name, of_split in splits.items() if not of_split]
    if empty:
        print(f"warning: no sample in {', '.join(empty)}: too few rows for a 90/10 split")
    write_quarantine(args.out / f"rl_quarantine_{args.split}.jsonl", source.quarantined)
    write_dataset(args.out, args.split, splits, tenant, request, funnel, args.hard_share)
    print(f"written: {args.out}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_rl",
        description="Build the RL data set from a BVT export: hard rows stay; canonical JSONL and parquet for verl.",
    )
    parser.add_argument("--input", type=Path, required=True, help="BVT export: .xlsx, .xls, .csv or .jsonl")
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--qrels", type=Path, help="BEIR qrels.tsv: relevant documents by query_id")
    parser.add_argument(
        "--split", choices=("auto", "train", "test"), default="auto", help="auto = train/val 90/10; else all rows in it"
    )
    parser.add_argument(
        "--hard-share",
        type=float,
        default=0.0,
        help="repeat training prompts whose recorded first hit is irrelevant up to this share of rows (default: never)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0); keep it equal to build_sft's")
    try:
        _run(parser.parse_args(argv))
    except (BadInput, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
