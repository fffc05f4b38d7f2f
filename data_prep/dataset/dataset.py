"""What both builders share: from the customer's files to selected rows, and the files beside every data set."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from data_prep.dataset.artefacts import code_sha256, settings_sha256
from data_prep.dataset.filters import NO_SCORE, intake_steps, log_window
from data_prep.dataset.intake import give_back, take_in
from data_prep.dataset.sample_parts import OF_SAMPLE
from data_prep.dataset.selection import Selection, Step
from data_prep.dataset.stats import describe, funnel_table, remarks_of, write_data_card, write_stats_page
from data_prep.questions.leakage import Leakage, check_leakage
from data_prep.questions.split import Split
from data_prep.readers.sources import Sources, write_quarantine
from data_prep.rows.remarks import said
from reward.records.files import BadInput, file_sha256, write_json
from reward.settings.recipe import TenantSettings

NO_ROW = "no row passes the filters of tenant"
WANTED_SAMPLES = 10_000  # below this many a build says so
_HOW_TO_SCORE = (
    "a log records no scores: score its rewrites by retrieval first (python -m data_prep.fill_baseline "
    "--input {inputs} --tenant {tenant} --out filled.jsonl, then --input filled.jsonl), or take them unscored with "
    "--keep-unscored"
)


@dataclass(frozen=True)
class Purpose:
    """What kind of data set it is, for its header and its card."""

    name: str
    version: str
    description: str

    def header(self, tenant: TenantSettings, now: datetime, splits: Mapping[Split, int]) -> dict[str, Any]:
        """Make the header of a data set."""
        return {
            "dataset_name": self.name,
            "version": self.version,
            "tenant_id": tenant.tenant_id,
            "created_at": now.isoformat(timespec="seconds"),
            "total_samples": sum(splits.values()),
            "splits": dict(splits),
        }


@dataclass
class Dataset:
    """Rows of the customer's files, selected and split, while their spool exists."""

    tenant: TenantSettings
    sources: Sources
    selection: Selection
    masked: Counter[str]
    names: tuple[Split, ...]
    leakage: Leakage | None = None
    window: tuple[date | None, date | None] = (None, None)
    seconds: dict[str, float] = field(default_factory=dict)

    def rows(self, split: Split, *columns: str) -> Iterator[dict[str, Any]]:
        """Yield each kept row of `split` as a dict of what a sample is made of and of `columns`, with `n`, its number
        among all kept, from 1."""
        for batch in self.selection.batches(split, (*OF_SAMPLE, *columns)):
            yield from batch.to_pylist()

    def count(self, split: Split) -> int:
        return len(self.selection.queries(split))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        give_back()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - start, 3)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What every builder is asked for.

    Args:
        inputs: files and folders: BVT exports and production logs.
        tenant: its name, or its YAML file.
        out: folder of the data set.
        split: auto splits by query; else every row belongs to this split.
        since, until: first and last day of production logs to take; None: see `filters.log_window`.
        days: take the production logs of this many days up to today (UTC) instead.
        seed: of everything random.
        dry_run: print the funnel, write nothing.
    """

    inputs: Sequence[Path]
    tenant: str
    out: Path
    split: Literal["auto", "train", "test"] = "auto"
    since: date | None = None
    until: date | None = None
    days: int | None = None
    seed: int = 0
    dry_run: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `BuildOptions` but for --split, which each builder explains."""
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="PATH",
        type=Path,
        required=True,
        nargs="+",
        help="files and folders: BVT exports (.xlsx .xls .csv) and JSON-lines logs (.jsonl .log, also .gz .zst)",
    )
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--since", type=date.fromisoformat, help="first day of production logs to take (YYYY-MM-DD)")
    parser.add_argument(
        "--until", type=date.fromisoformat, help="last day (default: the newest there is; --since: 30 days up to it)"
    )
    parser.add_argument("--days", type=int, metavar="N", help="production logs of the last N days up to today (UTC)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the funnel, write nothing")


def describe_request(options: BuildOptions, files: Sequence[Path], tenant: TenantSettings) -> dict[str, Any]:
    """Describe what was asked for: equal requests give equal bytes."""
    return {
        "input_sha256": {str(file): file_sha256(file) for file in files},
        "tenant_sha256": settings_sha256(tenant),
        "code_sha256": code_sha256(),
        "seed": options.seed,
        "split": options.split,
        "since": options.since and options.since.isoformat(),
        "until": options.until and options.until.isoformat(),
        "days": options.days and f"{options.days} up to {datetime.now(UTC).date().isoformat()}",
    }


def _asked_window(options: BuildOptions) -> tuple[date | None, date | None]:
    """Return the first and last day that were asked for.

    Raises:
        BadInput: --days beside another option of the window, or below 1; a first day after the last.
    """
    since, until = options.since, options.until
    if options.days is not None:
        if since or until:
            raise BadInput("--days: takes the last days up to today; leave out --since and --until")
        if options.days < 1:
            raise BadInput(f"--days {options.days}: must be 1 or more")
        until = datetime.now(UTC).date()
        since = until - timedelta(days=options.days - 1)
    if since and until and since > until:
        raise BadInput(f"--since {since} is after --until {until}: no day is left")
    return since, until


@contextmanager
def selected(
    options: BuildOptions,
    tenant: TenantSettings,
    required: Sequence[str],
    steps: Sequence[Step],
    worth: str,
    quarantine: str,
    shares: tuple[tuple[Split, float], ...],
) -> Iterator[Dataset]:
    """Read, clean, select and split the rows of `options.inputs`; print the funnel.

    Args:
        worth: SQL number; of duplicates the worthiest stays.
        quarantine: name of the file that says why each row is left out; it is written here when no row is kept.
        shares: of `data_prep.questions.split`, for `options.split` auto; else that split takes every row.

    Raises:
        BadInput: no file could be read, no row is left, or a training row is like a held-out one after all.
    """
    threshold = tenant.filters.near_duplicate
    asked = _asked_window(options)
    sources = Sources(options.inputs, tenant.sources, required)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data_prep_")))
        # Read and clean everything once, into a spool that the later stages read column by column.
        start = time.monotonic()
        intake = take_in(sources, tenant.deidentify, scratch / "rows.parquet")
        seconds["read"] = round(time.monotonic() - start, 3)
        give_back()
        selection = Selection(scratch / "rows.parquet", scratch)
        stack.callback(selection.close)
        names = tuple(name for name, _ in reversed(shares))
        dataset = Dataset(tenant, sources, selection, intake.masked, names, seconds=seconds)
        # Filter, then drop duplicates: a row that a filter drops must not win over its duplicate.
        with dataset.timed("clean"):
            window = log_window(selection.newest_log_day(), tenant.sources.log_days, *asked)
            dataset.window = window
            selection.apply([*intake_steps(tenant, *window), *steps], worth)
            selection.drop_duplicates()
        groups = None
        if threshold is not None:
            with dataset.timed("near_duplicates"):
                groups = selection.drop_near_duplicates(threshold)
        # Split by the words of the query, and check that no near-duplicate is on two sides.
        with dataset.timed("split"):
            if options.split == "auto":
                selection.split(shares, options.seed, groups)
                queries = {str(name): selection.queries(name) for name in names}
                keys = {str(name): selection.keys(name) for name in names}
                dataset.leakage = check_leakage(queries.pop("train"), queries, threshold, keys)
            else:
                dataset.names = (options.split,)
                selection.fix_split(options.split)
        _report(dataset)
        if not selection.kept:
            raise BadInput(_nothing_left(dataset, options, quarantine))
        if dataset.leakage and not dataset.leakage.clean:
            raise BadInput(f"{_inputs(options.inputs)}: {dataset.leakage}")
        yield dataset


def _nothing_left(dataset: Dataset, options: BuildOptions, quarantine: str) -> str:
    """Write the quarantine of a build that keeps no row, and say what dropped the rows and what to do."""
    selection, tenant = dataset.selection, dataset.tenant.tenant_id
    steps = selection.ask("SELECT step, count(*) AS n FROM dropped GROUP BY step ORDER BY n DESC, step")
    dropped = ", ".join(f"{step} {count}" for step, count in steps)
    said = f"{_inputs(options.inputs)}: {NO_ROW} {tenant} (of {selection.rows_in} rows in, dropped by: {dropped})"
    if _unscored(selection):
        said += f"; {_HOW_TO_SCORE.format(inputs=' '.join(map(str, options.inputs)), tenant=options.tenant)}"
    if not options.dry_run:
        path = write_quarantine(options.out / quarantine, dataset.sources.unreadable, left_out(dataset))
        said += f"; every row and its reason: {path}"
    return said


def _unscored(selection: Selection) -> int:
    """Return how many rows are left out only because their retrieval was never recorded."""
    [(count,)] = selection.ask(f"SELECT count(*) FROM dropped WHERE reason = '{NO_SCORE}'")
    return int(str(count))


def _inputs(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _report(dataset: Dataset) -> None:
    selection, console = dataset.selection, Console()
    console.print(funnel_table(selection.rows_in, selection.funnel))
    for note in dataset.sources.notes:
        print(f"note: {note}")
    for remark in remarks_of(selection):
        print(said(remark))
    since, until = dataset.window
    if until is not None:
        print(f"production logs: {since or 'the first day'} to {until}, both days included")
        if undated := selection.undated():
            print(f"note: {undated} rows of production logs record no time that is understood: kept, in no window")
    if selection.kept and (unscored := _unscored(selection)):
        print(f"note: {unscored} rows have no top1_score; fill_baseline scores them, --keep-unscored takes them as is")
    if 0 < selection.kept < WANTED_SAMPLES:
        print(f"note: {selection.kept:,} samples, fewer than the wanted {WANTED_SAMPLES:,}")
    for unreadable in dataset.sources.unreadable:
        print(f"unreadable: {unreadable.file}: {unreadable.reason}")
    if dataset.masked:
        print("masked: " + ", ".join(f"{kind} {count}" for kind, count in sorted(dataset.masked.items())))
    refused = selection.ask(
        "SELECT count(*), min_by(file, id), min_by(row, id), min_by(reason, id) "
        "FROM dropped JOIN rows USING (id) WHERE step = 'readable'"
    )[0]
    if refused[0]:
        print(f"not readable: {refused[0]} rows; the first is row {refused[2]} of {refused[1]}: {refused[3]}")


def write_reports(
    out: Path, names: Mapping[str, str], dataset: Dataset, purpose: Purpose, augmented: int, request: dict[str, Any]
) -> list[Path]:
    """Write statistics as JSON and as a page, and the data card; warn of an empty split.

    Args:
        names: of the files `json`, `html`, `card` and `quarantine`.
    """
    stats = describe(dataset.selection, dataset.names, augmented, dataset.masked, dataset.leakage, request["seed"])
    empty = [name for name in dataset.names if not stats["splits"][name]["samples"]]
    if empty:
        print(f"warning: no sample in {', '.join(empty)}: too few rows to split")
    write_json(out / names["json"], stats)
    write_stats_page(out / names["html"], f"{purpose.name} · {dataset.tenant.tenant_id}", stats)
    write_data_card(
        out / names["card"],
        purpose=purpose,
        tenant=dataset.tenant,
        stats=stats,
        request=request,
        unreadable=dataset.sources.unreadable,
        notes=dataset.sources.notes,
        window=dataset.window,
        leakage=dataset.leakage,
        quarantine=names["quarantine"],
    )
    return [out / names[kind] for kind in ("json", "html", "card")]


def left_out(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Yield file, sheet, row, step and reason of every row that is not in the data set, in order."""
    for batch in dataset.selection.left_out():
        yield from batch.to_pylist()
