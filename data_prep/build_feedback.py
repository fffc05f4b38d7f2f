"""Turn click logs into reranker pairs and new RL prompts: what users click, what they pass over, what there is to win.

python -m data_prep.build_feedback --input clicks/ --tenant fivedoctors --out data/feedback/fivedoctors
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.build_rl import write_split
from data_prep.clicks.evidence import KINDS, ClickEvidence, Confidence
from data_prep.clicks.intake import Feedback, read_corpus
from data_prep.clicks.samples import prompt_samples, reranker_records
from data_prep.dataset.artefacts import code_sha256, is_current, settings_sha256, write_manifest
from data_prep.dataset.filters import competition_steps, intake_steps
from data_prep.questions.split import Split
from data_prep.readers.sources import find_files, write_quarantine
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256, writing_lines
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings, load_tenant

DATASET_NAME = "sales_rag_feedback"
DATASET_VERSION = "1.0"
SPLITS: tuple[Split, ...] = ("train", "val")

_MANUAL = """\
what is read
  One row tells that a passage was shown for a query: query, clicked, and passage or doc_id (or both); when known
  position, request_id, timestamp, rewritten_query, user_profile, history_summary, history_context, tenant_id. Chinese
  headings do too. A passage that is named by its doc_id alone needs --corpus to become a pair.

what counts
  A pair is a query (its words, normalised) and a passage. One-sided 95 % bounds (Wilson) of its click rate decide:
    positive  shown at least --min-shown times, lower bound of clicked/shown ≥ --positive-rate (4 clicks of 5 do)
    negative  seen at least --min-shown times, upper bound of clicked/seen ≤ --negative-rate (0 clicks of 11 do)
  Everything else is ambiguous and used for nothing. Where the log has positions, a passage was seen when it was clicked
  or stood above a click of the same list (request_id, else query and time); else whenever it was shown. Rows that tell
  of one passage in one list are one showing.
  A prompt is a query for which users confidently click a passage that is usually not ranked first, or click nothing at
  all (the upper bound of "any click" ≤ --negative-rate): there is something to win. Its relevant_doc_ids are what is
  confidently clicked. A prompt close to one that is held out is dropped.
  Personal data is masked. rows in = rows of positive, negative and ambiguous pairs + rows quarantined, always.

what is written to DIR
  reranker_pairs.jsonl           query_text, positives, negatives (doc_id, text), source_chunk, meta: one query a line
  confident_pairs.jsonl          every confident pair and its counts; of the negatives, new questions can be written
  rl_{train,val}.jsonl, .parquet canonical samples; for verl (90/10, as build_rl splits)
  quarantine.jsonl               file, sheet, row, step, reason of every row left out
  feedback.json                  counts and manifest: hashes of input, settings, code, outputs
  The same files, tenant and seed give the same bytes; only feedback.json carries a time.

exit codes
  0 written, or nothing to do; 2 bad input, in one line
"""


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """What `build_feedback` is asked for.

    Args:
        inputs: files and folders of click logs.
        tenant: its name, or its YAML file.
        out: folder of the data set.
        corpus: `corpus.jsonl` of the knowledge base: texts by doc_id.
        min_shown, positive_rate, negative_rate: see `clicks.evidence.Confidence`.
        seed: of the split; the same as `build_rl`'s keeps the two data sets' splits equal.
        dry_run: print the counts, write nothing.
    """

    inputs: Sequence[Path]
    tenant: str
    out: Path
    corpus: Path | None = None
    min_shown: int = Confidence.min_shown
    positive_rate: float = Confidence.positive_rate
    negative_rate: float = Confidence.negative_rate
    seed: int = 0
    dry_run: bool = False


def _write(
    out: Path, evidence: ClickEvidence, samples: list[Sample], tenant: TenantSettings, feedback: Feedback
) -> tuple[list[Path], int]:
    """Write the files; return them, and how many reranker records there are."""
    pairs, reranker, quarantine = (
        out / f"{name}.jsonl" for name in ("confident_pairs", "reranker_pairs", "quarantine")
    )
    records = 0
    with writing_lines(pairs) as write:
        for pair in evidence.pairs():
            write(json.dumps(pair, ensure_ascii=False))
    with writing_lines(reranker) as write:
        for record in reranker_records(evidence, tenant):
            write(json.dumps(record, ensure_ascii=False))
            records += 1
    write_quarantine(quarantine, feedback.unreadable, evidence.left_out())
    outputs = [reranker, pairs, quarantine]
    for split in SPLITS:
        of_split = [sample for sample in samples if sample.metadata.split == split]
        files, _ = write_split(out, split, lambda same=of_split: same, tenant)  # type: ignore[misc]
        outputs += files
    return outputs, records


def _report(found: Mapping[str, Any], feedback: Feedback, masked: Counter[str]) -> None:
    table = Table(title="feedback", title_justify="left")
    for heading in ("", "of", "count"):
        table.add_column(heading, justify="right" if heading == "count" else "left")
    for what, counts, names in (
        ("rows", found["rows"], {}),
        ("pairs", found["pairs"], {}),
        ("queries", found["queries"], KINDS),
    ):
        for name, count in counts.items():
            table.add_row(what, names.get(name, name), f"{count:,}")
            what = ""
        table.add_section()
    Console().print(table)
    for note in feedback.notes:
        print(f"note: {note}")
    for line in feedback.passed_over:
        print(line)
    for unreadable in feedback.unreadable:
        print(f"unreadable: {unreadable.file}: {unreadable.reason}")
    if masked:
        print("masked: " + ", ".join(f"{kind} {count}" for kind, count in sorted(masked.items())))
    prompts = ", ".join(f"{split} {count}" for split, count in found["prompts"].items())
    print(f"RL prompts: {prompts}; dropped as close to a held-out one {found['leaking_prompts']}")
    if found["pairs_without_text"]:
        print(
            f"warning: {found['pairs_without_text']} confident pairs name a doc_id whose text is not known: "
            "no reranker pairs of them (--corpus)"
        )


def build_feedback(options: FeedbackOptions) -> None:
    """Build reranker pairs and RL prompts, unless they are up to date; print the counts.

    Raises:
        BadInput: an option or a file cannot be used, or no row is left.
    """
    tenant, out = load_tenant(options.tenant), options.out
    confidence = Confidence(options.min_shown, options.positive_rate, options.negative_rate)
    request = {
        "input_sha256": {str(file): file_sha256(file) for file in find_files(options.inputs)},
        "corpus_sha256": options.corpus and file_sha256(options.corpus),
        "tenant_sha256": settings_sha256(tenant),
        "code_sha256": code_sha256(),
        "confidence": asdict(confidence),
        "seed": options.seed,
    }
    manifest = out / "feedback.json"
    if not options.dry_run and is_current(manifest, request):
        print(f"{out}: up to date, nothing to do")
        return
    feedback = Feedback(options.inputs, tenant)
    corpus = read_corpus(options.corpus, tenant.deidentify) if options.corpus else {}
    # A click row records no success: the other steps of the RL data apply.
    steps = [step for step in competition_steps(tenant.filters) if step.name != "success"]
    steps = [*intake_steps(tenant, None, None), *steps]
    with tempfile.TemporaryDirectory(prefix="data_prep_") as folder:
        scratch = Path(folder)
        masked = feedback.spool(scratch / "clicks.parquet")
        with closing(ClickEvidence(scratch / "clicks.parquet", steps, corpus, confidence, scratch)) as evidence:
            samples, leaking = prompt_samples(evidence, tenant, options.seed)
            counts = _counts(evidence, samples, leaking, masked)
            _report(counts, feedback, masked)
            if counts["rows"]["in"] == counts["rows"]["quarantined"]:
                first = next(evidence.left_out())
                raise BadInput(f"{first['file']}: no row can be used; row {first['row']}: {first['reason']}")
            if options.dry_run:
                print("dry run: nothing written")
                return
            outputs, records = _write(out, evidence, samples, tenant, feedback)
    header = {
        "dataset_name": DATASET_NAME,
        "version": DATASET_VERSION,
        "tenant_id": tenant.tenant_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reranker_records": records,
        "notes": [*feedback.notes, *feedback.passed_over],
    }
    write_manifest(manifest, request, outputs, header | counts)
    print(f"written: {out}")


def _counts(evidence: ClickEvidence, samples: list[Sample], leaking: int, masked: Counter[str]) -> dict[str, Any]:
    """Return what `feedback.json` counts: rows, pairs, queries, prompts, and what was masked."""
    return {
        "rows": evidence.rows(),
        "pairs": evidence.pair_counts(),
        "queries": evidence.query_counts(),
        "prompts": {split: sum(s.metadata.split == split for s in samples) for split in SPLITS},
        "leaking_prompts": leaking,
        "pairs_without_text": sum(not pair["text"] for pair in evidence.pairs()),
        "masked": dict(sorted(masked.items())),
    }


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_feedback",
        description="Build reranker pairs and new RL prompts from click logs.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="PATH",
        type=Path,
        required=True,
        nargs="+",
        help="files and folders: .jsonl .log (also .gz .zst) .csv .xlsx",
    )
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--corpus", type=Path, help="corpus.jsonl of the knowledge base (_id, text): texts by doc_id")
    parser.add_argument("--min-shown", type=int, default=Confidence.min_shown, help="default %(default)s")
    parser.add_argument(
        "--positive-rate", type=float, default=FeedbackOptions.positive_rate, help="default %(default)s"
    )
    parser.add_argument("--negative-rate", type=float, default=Confidence.negative_rate, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default 0); keep it equal to build_rl's")
    parser.add_argument("--dry-run", action="store_true", help="print the counts, write nothing")
    build_feedback(FeedbackOptions(**vars(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
