"""Turn BVT exports and production logs into the SFT data set: the deployed rewriter's rewrites that retrieved well.

python -m data_prep.build_sft --input test_sft.xlsx --tenant fivedoctors --out data/sft/fivedoctors
python -m data_prep.build_sft --input exports/ logs/ --tenant fivedoctors --out data/sft/fivedoctors --dry-run
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.dataset.artefacts import MESSAGES, is_current, point_latest, write_manifest, writing_parquet
from data_prep.dataset.augment import augment
from data_prep.dataset.dataset import (
    BuildOptions,
    Dataset,
    Purpose,
    add_arguments,
    describe_request,
    left_out,
    selected,
    write_reports,
)
from data_prep.dataset.filters import imitation_steps
from data_prep.dataset.sample_parts import context_of, metadata_of
from data_prep.prompt import build_sft_messages
from data_prep.questions.leakage import drop_leaking
from data_prep.questions.question_sets import bare_texts, question_keys
from data_prep.questions.split import SFT_SHARES, Split
from data_prep.readers.sources import find_files, write_quarantine
from reward.records.commands import command
from reward.records.files import BadInput, writing_lines
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings, load_tenant

PURPOSE = Purpose(
    "sales_rag_query_rewrite_sft",
    "1.0",
    "Distillation: queries with their context, and the deployed rewriter's rewrites that retrieved well, to imitate.",
)
REQUIRED = ("original_query", "rewritten_query", "success")
_QUARANTINE = "quarantine.jsonl"
_SCHEMA = pa.schema([("messages", MESSAGES)])

_MANUAL = """\
what is kept
  Rows that succeeded, retrieved well (filters.min_top1_score), were really rewritten and are of sane length; of
  duplicates and near-duplicates the best scored. Every threshold is in the tenant's YAML, under filters. Personal
  data is masked (deidentify). rows in = rows kept + rows quarantined, always.

what is written to DIR
  train|val|test_<stamp>.jsonl   canonical samples, and *_latest.jsonl pointing to them
  sft_{train,val}.parquet        for verl, column messages
  sft_{train,val}.jsonl          for ms-swift, messages and metadata
  dataset_<stamp>.json           header and manifest: hashes of input, settings, code, outputs; dataset_latest.json
  DATA_CARD.md, stats.json, stats.html, quarantine.jsonl (file, sheet, row, step, reason)
  The same files, tenant and seed give the same bytes; only names and the header carry a time. A finished build is
  left alone.

logs without scores
  A service's log records the rewrite, and no score. Score the rewrites by retrieval first, or take them unscored:
  python -m data_prep.fill_baseline --input logs/ --tenant fivedoctors --out filled.jsonl
  python -m data_prep.build_sft --input filled.jsonl --tenant fivedoctors --out data/sft/fivedoctors
  python -m data_prep.build_sft --input logs/ --tenant fivedoctors --out data/sft/fivedoctors --keep-unscored

exit codes
  0 written, or nothing to do; 2 bad input, in one line
"""


@dataclass(frozen=True, kw_only=True)
class SftOptions(BuildOptions):
    """What `build_sft` is asked for.

    Args:
        min_top1_score: in [0, 1]; None leaves it to the tenant's filters.
        keep_unscored: keep rows without a score, as the tenant's filters.keep_unscored does.
        augment: add synonym-swapped copies of training samples.
    """

    min_top1_score: float | None = None
    keep_unscored: bool = False
    augment: bool = True


def samples(dataset: Dataset, split: Split) -> Iterator[Sample]:
    """Yield the samples of `split`, numbered in source order over all splits."""
    for row in dataset.rows(split):
        yield Sample(
            sample_id=f"{dataset.tenant.short_id}_{row['n']:03d}",
            original_query=row["original_query"],
            rewritten_query=row["rewritten_query"],
            context=context_of(row),
            metadata=metadata_of(row, dataset.tenant, split),
        )


def augmented(dataset: Dataset, seed: int) -> list[str]:
    """Make copies of the first training samples, as JSON lines. A copy that asks what another sample asks, or nearly
    what a held-out one asks, is left out."""
    tenant, selection = dataset.tenant, dataset.selection
    first = round(dataset.count("train") * tenant.augment.share)
    if not first or not tenant.synonyms:
        return []
    sources = islice(samples(dataset, "train"), first)
    made = augment(sources, tenant.synonyms, tenant.lexicon.words(), tenant.augment.swap_probability, seed)
    queries, lines = [], []
    for copy in made:
        queries.append(copy.original_query)
        lines.append(copy.to_json())
    held_out = pa.concat_arrays(
        [selection.keys(name) for name in dataset.names if name != "train"] or [pa.array([], pa.string())]
    )
    keys = question_keys(pa.array(queries, pa.string()))
    leaking = drop_leaking(keys, held_out, tenant.filters.near_duplicate)
    taken = pc.is_in(bare_texts(keys), bare_texts(selection.keys())).to_pylist()
    return [line for line, leaks, is_taken in zip(lines, leaking, taken, strict=True) if not leaks and not is_taken]


def write_dataset(out: Path, dataset: Dataset, copies: list[str], request: dict[str, Any]) -> None:
    """Write every file into `out`, pointers after what they point to, the manifest last."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y%m%d_%H%M%S")
    outputs: list[Path] = []
    with dataset.timed("write"):
        for split in dataset.names:
            canonical = out / f"{split}_{stamp}.jsonl"
            outputs += _write_split(out, canonical, split, dataset, copies if split == "train" else [])
            point_latest(out / f"{split}_latest.jsonl", canonical)
        outputs.append(write_quarantine(out / _QUARANTINE, dataset.sources.unreadable, left_out(dataset)))
        names = {"card": "DATA_CARD.md", "json": "stats.json", "html": "stats.html", "quarantine": _QUARANTINE}
        outputs += write_reports(out, names, dataset, PURPOSE, len(copies), request)
    splits = {split: dataset.count(split) + (len(copies) if split == "train" else 0) for split in dataset.names}
    header = PURPOSE.header(dataset.tenant, now, splits) | {"seconds": dataset.seconds}
    write_manifest(out / f"dataset_{stamp}.json", request, outputs, header)
    point_latest(out / "dataset_latest.json", out / f"dataset_{stamp}.json")


def _write_split(out: Path, canonical: Path, split: Split, dataset: Dataset, copies: list[str]) -> list[Path]:
    parquet, swift = out / f"sft_{split}.parquet", out / f"sft_{split}.jsonl"
    with ExitStack() as stack:
        write_canonical = stack.enter_context(writing_lines(canonical))
        trained = split != "test"
        if trained:
            write_row = stack.enter_context(writing_parquet(parquet, _SCHEMA))
            write_swift = stack.enter_context(writing_lines(swift))
        own = samples(dataset, split)
        for sample in chain(own, map(Sample.model_validate_json, copies)):
            write_canonical(sample.to_json())
            if trained:
                chat = build_sft_messages(sample, dataset.tenant)
                write_row({"messages": chat})
                write_swift(
                    json.dumps({"messages": chat, "metadata": sample.metadata.model_dump()}, ensure_ascii=False)
                )
    return [canonical, parquet, swift] if trained else [canonical]


def _with_filters(tenant: TenantSettings, options: SftOptions) -> TenantSettings:
    changed: dict[str, Any] = {"keep_unscored": True} if options.keep_unscored else {}
    if options.min_top1_score is not None:
        if not 0 <= options.min_top1_score <= 1:
            raise BadInput(f"--min-top1-score {options.min_top1_score}: outside [0, 1]")
        changed["min_top1_score"] = options.min_top1_score
    return tenant.model_copy(update={"filters": tenant.filters.model_copy(update=changed)})


def build_sft(options: SftOptions) -> None:
    """Build the SFT data set, unless it is up to date; print the funnel.

    Raises:
        BadInput: an option or a file cannot be used, or no row is left.
    """
    tenant = _with_filters(load_tenant(options.tenant), options)
    request = describe_request(options, find_files(options.inputs), tenant) | {"augment": options.augment}
    if not options.dry_run and is_current(options.out / "dataset_latest.json", request):
        print(f"{options.out}: up to date, nothing to do")
        return
    steps = imitation_steps(tenant.filters)
    with selected(options, tenant, REQUIRED, steps, "top1_score", _QUARANTINE, SFT_SHARES) as dataset:
        if options.dry_run:
            print("dry run: nothing written")
            return
        # Copies are made after the split: one of a held-out sample would leak it into training.
        with dataset.timed("augment"):
            copies = augmented(dataset, options.seed) if options.augment and "train" in dataset.names else []
        print(f"augmented: {len(copies)} copies of training samples")
        write_dataset(options.out, dataset, copies, request)
    print(f"written: {options.out}")


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_sft",
        description="Build the SFT data set from BVT exports and production logs: read, clean, de-identify, select, "
        "split, augment; parquet for verl, JSONL for ms-swift.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--min-top1-score", type=float, help="instead of the tenant's filters.min_top1_score, a number in [0, 1]"
    )
    parser.add_argument(
        "--keep-unscored", action="store_true", help="keep rows whose retrieval nobody recorded (a log has no scores)"
    )
    parser.add_argument("--split", choices=("auto", "train", "test"), default="auto", help="auto = 80/10/10 by query")
    parser.add_argument("--no-augment", dest="augment", action="store_false", help="no synonym-swapped copies")
    build_sft(SftOptions(**vars(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
