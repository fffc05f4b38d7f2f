"""Turn BVT exports and production logs into the RL data set: queries to compete on, each with the rewrite of the
deployed rewriter.

    python -m data_prep.build_rl --input test_sft.xlsx --tenant fivedoctors --out data/rl/fivedoctors
    python -m data_prep.build_rl --input held_out.xlsx --tenant fivedoctors --out data/rl/fivedoctors --split test
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.dataset.artefacts import MESSAGES, is_current, point_latest, write_manifest, writing_parquet
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
from data_prep.dataset.filters import competition_steps
from data_prep.dataset.sample_parts import context_of, hits_of, metadata_of
from data_prep.prompt import build_messages
from data_prep.questions.split import RL_SHARES, Split
from data_prep.readers.qrels import read_qrels
from data_prep.readers.sources import find_files, write_quarantine
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, writing_lines
from reward.records.sample import Candidates, RetrievalResults, Sample
from reward.settings.recipe import TenantSettings, load_tenant

PURPOSE = Purpose(
    "sales_rag_query_rewrite_rl",
    "1.0",
    "Competition: queries with their context, and what the deployed rewriter made of them, to be beaten.",
)
REQUIRED = ("original_query", "rewritten_query", "success")
SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string()), ("sample", pa.string())])),
    ]
)

_QUERY_IDS = "SELECT DISTINCT query_id FROM rows JOIN kept USING (id)"

_MANUAL = """\
what is kept
  Rows that succeeded and are of sane length, hard ones and those without a recorded rewrite included; of duplicates
  and near-duplicates one that has a rewrite. Personal data is masked. rows in = rows kept + rows quarantined, always.

what is written to DIR, for each split built
  rl_<split>.jsonl               canonical samples, each once, without a rewrite to imitate; rl_<split>_latest.jsonl
                                 points to it
  rl_<split>.parquet             for verl
and for the build (<mode> is the --split given)
  rl_dataset_<mode>.json         header and manifest: hashes of input, settings, code, outputs
  rl_quarantine_<mode>.jsonl     file, sheet, row, step, reason of every row left out
  rl_stats_<mode>.json, .html, RL_DATA_CARD_<mode>.md
  --split auto makes train and val, 90/10 by query: the test split comes from a BVT run of its own, over queries that
  nobody trained on. A fixed split takes every row and leaves the other splits' files alone.

exit codes
  0 written, or nothing to do; 2 bad input, in one line
"""


@dataclass(frozen=True, kw_only=True)
class RlOptions(BuildOptions):
    """What `build_rl` is asked for.

    Args:
        qrels: BEIR `qrels.tsv`: relevant documents by query_id.
        hard_share: in [0, 1): share of training rows up to which hard prompts are repeated.
    """

    qrels: Path | None = None
    hard_share: float = 0.0


def samples(dataset: Dataset, qrels: Mapping[str, tuple[str, ...]], split: Split) -> Iterator[Sample]:
    """Yield the samples of `split`, numbered in source order over all splits."""
    tenant = dataset.tenant
    for row in dataset.rows(split, "query_id", "recall_results"):
        yield Sample(
            sample_id=f"{tenant.short_id}_rl_{row['n']:03d}",
            original_query=row["original_query"],
            context=context_of(row),
            metadata=metadata_of(row, tenant, split),
            candidates=Candidates(baseline=row["rewritten_query"]),
            retrieval_results=RetrievalResults(baseline=hits_of(row, tenant.deidentify)),
            relevant_doc_ids=qrels.get(row["query_id"], ()),
        )


def is_hard(sample: Sample) -> bool:
    """Return whether the deployed rewriter's first recorded hit is known to be irrelevant: there is something to
    win."""
    hits = sample.retrieval_results.baseline
    return bool(sample.relevant_doc_ids) and not (hits and hits[0].doc_id in sample.relevant_doc_ids)


def hard_repeats(hard: int, of_all: int, share: float) -> int:
    """Return how often each hard sample occurs in the training rows, so that the share of hard rows comes closest to
    `share`.

    Prompts that both rewriters get right teach a competition nothing; it learns faster where the deployed one fails.
    """
    if not hard or not share:
        return 1
    return max(1, round(share * (of_all - hard) / ((1 - share) * hard)))


def parquet_row(sample: Sample, index: int, tenant: TenantSettings) -> dict[str, Any]:
    """Make one row of verl's RL parquet; `Sample.from_extra_info` turns its `extra_info` into `sample` again."""
    return {
        "data_source": f"{tenant.tenant_id}_rewrite",
        "prompt": build_messages(sample, tenant),
        "ability": "rewrite",
        "reward_model": {"style": "rule", "ground_truth": sample.candidates.baseline},
        "extra_info": sample.to_extra_info(index),
    }


def write_split(
    out: Path, split: Split, again: Callable[[], Iterable[Sample]], tenant: TenantSettings, hard_share: float = 0.0
) -> tuple[list[Path], Counter[str]]:
    """Write each sample to `rl_<split>.jsonl`, and to `rl_<split>.parquet` with the hard ones repeated.

    Args:
        again: gives the samples, from the first, each time it is called.

    Returns:
        The files, and how many `samples`, parquet `rows`, `hard` samples, samples with relevant documents (`judged`)
        and `without_rewrite` there are.
    """
    jsonl, parquet = out / f"rl_{split}.jsonl", out / f"rl_{split}.parquet"
    counts: Counter[str] = Counter()
    with writing_lines(jsonl) as write_line, writing_parquet(parquet, SCHEMA) as write_row:
        for sample in again():
            write_line(sample.to_json())
            write_row(parquet_row(sample, counts["samples"], tenant))
            counts["samples"] += 1
            counts["hard"] += is_hard(sample)
            counts["judged"] += bool(sample.relevant_doc_ids)
            counts["without_rewrite"] += not sample.candidates.baseline
        counts["rows"] = counts["samples"]
        for _ in range(hard_repeats(counts["hard"], counts["samples"], hard_share) - 1):
            for sample in filter(is_hard, again()):
                write_row(parquet_row(sample, counts["rows"], tenant))
                counts["rows"] += 1
    return [jsonl, parquet], counts


def write_dataset(
    options: RlOptions, dataset: Dataset, qrels: Mapping[str, tuple[str, ...]], request: dict[str, Any]
) -> None:
    """Write every file of the data set into `options.out`, the manifest last; print the counts."""
    out, mode, tenant = options.out, options.split, dataset.tenant
    outputs, counts = [], {}
    with dataset.timed("write"):
        for split in dataset.names:
            share = options.hard_share if split == "train" else 0.0
            files, counts[split] = write_split(out, split, lambda s=split: samples(dataset, qrels, s), tenant, share)  # type: ignore[misc]
            outputs += files
            point_latest(out / f"rl_{split}_latest.jsonl", files[0])
        quarantine = out / _quarantine(mode)
        outputs.append(write_quarantine(quarantine, dataset.sources.unreadable, left_out(dataset)))
        names = {
            "card": f"RL_DATA_CARD_{mode}.md",
            "json": f"rl_stats_{mode}.json",
            "html": f"rl_stats_{mode}.html",
            "quarantine": _quarantine(mode),
        }
        outputs += write_reports(out, names, dataset, PURPOSE, 0, request)
    splits = {split: counts[split]["samples"] for split in dataset.names}
    header = PURPOSE.header(tenant, datetime.now(UTC), splits) | {"seconds": dataset.seconds}
    write_manifest(out / f"rl_dataset_{mode}.json", request, outputs, header)
    total = sum(counts.values(), Counter[str]())
    shown = ", ".join(f"{split} {n}" for split, n in splits.items())
    print(f"samples: {shown}; with relevant documents {total['judged']}; without a rewrite {total['without_rewrite']}")
    if options.hard_share and "train" in counts:
        train = counts["train"]
        print(f"hard prompts: {train['hard']} of train, repeated to {train['rows']} training rows")


def _quarantine(mode: str) -> str:
    return f"rl_quarantine_{mode}.jsonl"


def build_rl(options: RlOptions) -> None:
    """Build the RL data set, unless it is up to date; print the funnel.

    Raises:
        BadInput: an option or a file cannot be used, or no row is left.
    """
    out, inputs = options.out, options.inputs
    if not 0 <= options.hard_share < 1:
        raise BadInput(f"--hard-share {options.hard_share}: outside [0, 1)")
    tenant = load_tenant(options.tenant)
    qrels = {} if options.qrels is None else read_qrels(options.qrels)
    request = describe_request(options, find_files(inputs), tenant) | {
        "qrels_sha256": None if options.qrels is None else file_sha256(options.qrels),
        "hard_share": options.hard_share,
    }
    if not options.dry_run and is_current(out / f"rl_dataset_{options.split}.json", request):
        print(f"{out}: up to date, nothing to do")
        return
    required = REQUIRED if options.qrels is None else (*REQUIRED, "query_id")
    # Of duplicates one that has a rewrite to beat is worth more than one that has none.
    worth = "(rewritten_query <> '')::INT"
    steps, quarantine = competition_steps(tenant.filters), _quarantine(options.split)
    with selected(options, tenant, required, steps, worth, quarantine, RL_SHARES) as dataset:
        # Qrels of other queries would leave every sample without relevant documents, and nobody would notice.
        if qrels:
            asked = [query_id for (query_id,) in dataset.selection.ask(_QUERY_IDS)]
            unjudged = [query_id for query_id in asked if query_id not in qrels]
            if len(unjudged) == len(asked):
                raise BadInput(f"{options.qrels}: holds none of the query_ids of {inputs[0]}")
            if unjudged:
                note = f"{options.qrels}: no relevant document for {len(unjudged)} of {len(asked)} query_ids"
                dataset.sources.notes.append(f"{note}, such as {unjudged[0]}")
                print(f"note: {dataset.sources.notes[-1]}")
        if options.dry_run:
            print("dry run: nothing written")
            return
        write_dataset(options, dataset, qrels, request)
    print(f"written: {out}")


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_rl",
        description="Build the RL data set from BVT exports and production logs: read, clean, de-identify, split.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument(
        "--qrels",
        type=Path,
        help="BEIR qrels.tsv: relevant documents by query_id; rewards then measure retrieval, not estimate it",
    )
    parser.add_argument(
        "--split", choices=("auto", "train", "test"), default="auto", help="auto = 90/10 train/val by query"
    )
    parser.add_argument(
        "--hard-share",
        type=float,
        default=0.0,
        help="repeat training prompts whose recorded first hit is irrelevant up to this share of rows, in [0, 1)",
    )
    build_rl(RlOptions(**vars(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
