"""Fill in, ahead of training, what rows lack of the deployed rewriter: its rewrite, what that retrieves, its grade.

    python -m data_prep.fill_baseline --input logs/ --tenant fivedoctors --out filled.jsonl --judge deepseek_v3

Training asks the same questions about the baseline and finds the answers in the ledger: its first steps are not slow,
and nothing is paid for twice.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.baseline.asking import probe, run_until_stopped, with_options
from data_prep.baseline.filling import Plan, Spool, Tally, Task, fill_rows, look_up
from data_prep.dataset.artefacts import code_sha256, is_current, read_manifest, settings_sha256, write_manifest
from data_prep.dataset.intake import take_in
from data_prep.readers.qrels import read_qrels
from data_prep.readers.sources import Sources, write_quarantine
from reward.ledger.ledger import Ledger
from reward.records.call import CallKind
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256
from reward.settings.recipe import BudgetLimits, LedgerSettings, RewardSettings, load_judge, load_tenant

_NAMES = {CallKind.BASELINE: "rewrites", CallKind.RAG: "hits", CallKind.JUDGE: "judgements"}

_MANUAL = """\
what is asked, for each row
  that has no rewritten_query   the baseline (tenant YAML, `baseline.url`) for its rewrite
  that has no hits either       retrieval with that rewrite; its scores go to the row
  that has no quality_score     with --judge: the grade of the rewrite, the median of the profile's `baseline_votes`
  Queries and contexts are cleaned and de-identified first, as the builders do it: no personal data is sent, and
  training, whose samples come from the builders, asks the very same. The same question is asked once.

what is written
  <out>                    a JSON line for every usable row, in order: what was recorded and what was found. Give it to
                           build_sft and build_rl as --input. Of hits it holds what training keeps, scores and ids of
                           the first three. What failed stays empty, with the reason in `error`: never a made-up score.
  <out>.manifest.json      counts, and hashes of input, settings and output
  <out>.quarantine.jsonl   file, sheet, row, reason of every other row (only if there are any).
                           Rows in = rows written + rows quarantined.
  the ledger               every call, its answer and its cost

for training to find the answers
  Name the ledger of the run to come (`rewriter.ledger.path` of the recipe; the default is that of the recipes here),
  and the same settings: rag.url, kb_name, kb_version, baseline.url, --top-k (`reward.top_k`), the judge profile, and
  --qrels when the data set is built with them. --all-rows also asks about rows that have everything recorded: training
  asks about those too, and its own answers are live ones.

stopping and resuming
  After Ctrl-C, SIGTERM or kill -9, and when calls have failed or a budget was spent, the same command asks only what
  the ledger has no answer to.

examples
  python -m data_prep.fill_baseline --input logs/ --tenant chengla --out filled.jsonl --dry-run
  python -m data_prep.fill_baseline --input test_sft.xlsx --tenant fivedoctors --out filled.jsonl --all-rows \\
      --judge gpt5 --max-cny 200 --requests-per-minute 300

exit codes
  0 written (failed calls are counted in the table), or there was nothing to do
  2 bad input, service not reachable, or every row that was asked about failed: one line says which
  130, 143 stopped by Ctrl-C or SIGTERM
"""


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    """Which rows to fill, of which tenant, with which judge and ledger; None leaves a value to the tenant's YAML.

    Args:
        inputs: files and folders: BVT exports and logs.
        tenant: its name, or its YAML file.
        out: the filled rows (.jsonl).
        judge: a judge profile's name or YAML file; None: no grades.
        ledger: None: that of the tenant's training.
        qrels: relevant documents by query_id, as given to `build_rl`.
        top_k: hits that training asks for.
        all_rows: ask also about what is recorded.
        max_cny, max_cny_per_day: yuan that this command, or all users of the ledger in a UTC day, may spend.
        dry_run: print what would be asked, ask and write nothing.
    """

    inputs: Sequence[Path]
    tenant: str
    out: Path
    judge: str | None = None
    ledger: Path | None = None
    qrels: Path | None = None
    top_k: int = RewardSettings().top_k
    all_rows: bool = False
    rag_url: str | None = None
    baseline_url: str | None = None
    requests_per_minute: int | None = None
    max_cny: float | None = None
    max_cny_per_day: float | None = None
    dry_run: bool = False


def _task(options: FillOptions) -> Task:
    tenant = load_tenant(options.tenant)
    pace = {"requests_per_minute": options.requests_per_minute}
    rag = with_options(tenant.rag, {"url": options.rag_url, **pace})
    baseline = with_options(tenant.baseline, {"url": options.baseline_url, **pace})
    judge = load_judge(options.judge) if options.judge else None
    if judge and judge.mode == "pairwise":
        raise BadInput(f"--judge {options.judge}: mode pairwise grades no single rewrite (pointwise or batched does)")
    if options.top_k < 1:
        raise BadInput(f"--top-k {options.top_k}: must be 1 or more")
    for name, limit in (("--max-cny", options.max_cny), ("--max-cny-per-day", options.max_cny_per_day)):
        if limit is not None and not limit >= 0:
            raise BadInput(f"{name} {limit}: must be 0 or more")
    return Task(
        tenant.model_copy(update={"rag": rag, "baseline": baseline}),
        judge,
        read_qrels(options.qrels) if options.qrels else {},
        options.top_k,
        options.all_rows,
        LedgerSettings(
            path=options.ledger or Path("outputs", "rl", tenant.tenant_id, "ledger.sqlite"),
            run_id="fill_baseline",
            run=BudgetLimits(cny=options.max_cny),
            day=BudgetLimits(cny=options.max_cny_per_day),
        ),
    )


def _request(task: Task, options: FillOptions, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "input_sha256": [file_sha256(file) for file in files],
        "qrels_sha256": file_sha256(options.qrels) if options.qrels else None,
        "tenant_sha256": settings_sha256(task.tenant),
        "judge_sha256": settings_sha256(task.judge) if task.judge else None,
        "code_sha256": code_sha256(),
        "top_k": task.top_k,
        "all_rows": task.all_rows,
        "ledger": str(task.ledger.path),
    }


def _is_finished(manifest: Path, request: dict[str, Any], ledger: Path) -> bool:
    header = read_manifest(manifest) or {}
    return ledger.exists() and is_current(manifest, request) and not header.get("incomplete")


def fill_baseline(options: FillOptions) -> None:
    """Fill what the rows lack, from the ledger or by asking, and write them; print what was done.

    Raises:
        BadInput: an option or a file cannot be used, a service is not reachable, or every row asked about failed.
        Stopped: a signal came; the answers so far are in the ledger.
    """
    task, out = _task(options), options.out
    if out.suffix != ".jsonl":
        raise BadInput(f"{out}: --out must end in .jsonl")
    manifest = out.with_name(out.name + ".manifest.json")
    sources = Sources(options.inputs, task.tenant.sources, ("original_query",))
    request = _request(task, options, sources.files)
    if not options.dry_run and _is_finished(manifest, request, task.ledger.path):
        print(f"{out}: finished, nothing to do (delete it to fill again)")
        return
    with tempfile.TemporaryDirectory(prefix="fill_baseline_") as scratch:
        # Rows are cleaned before they are asked about: training asks with the cleaned words.
        spool = Spool(Path(scratch, "rows.parquet"), task.tenant.tenant_id)
        rows_in = take_in(sources, task.tenant.deidentify, spool.path).rows_in
        settings = task.ledger
        if options.dry_run and not settings.path.exists():
            settings = settings.model_copy(update={"path": Path(scratch, "ledger.sqlite")})
        with closing(Ledger(settings)) as ledger:
            # What the ledger knows costs nothing: only the rest is asked, after a look at the services.
            plan = asyncio.run(look_up(task, spool.usable(), ledger))
            passed_over = spool.passed_over()
            _print_plan(task, sources, passed_over, rows_in, plan)
            if not plan.known.rows:
                first = next(("row {row} of {file}: {reason}".format_map(row) for row in spool.quarantined()), "no row")
                raise BadInput(f"{', '.join(map(str, options.inputs))}: no row can be used; {first}")
            if options.dry_run:
                print("dry run: nothing asked, nothing written")
                return
            _probe(task, plan)
            tally = asyncio.run(fill_rows(task, spool.usable(), plan.rows_to_ask, ledger, out))
        # The rows are written by now; what was left out goes beside them.
        quarantine = out.with_name(out.name + ".quarantine.jsonl")
        quarantine.unlink(missing_ok=True)
        if rows_in > tally.rows or sources.unreadable:
            write_quarantine(quarantine, sources.unreadable, spool.quarantined())
    write_manifest(manifest, request, [out], _counts(rows_in, tally, sources, passed_over))
    _print_tally(tally)
    print(f"written: {out}")
    if tally.incomplete == plan.rows_to_ask > 0:
        raise BadInput(f"every row that was asked about failed; the first: {tally.first_failure}")
    if tally.incomplete:
        print(f"{tally.incomplete} rows are incomplete; the first: {tally.first_failure}")
        print("run the same command again: it asks the failed ones only")


def _counts(rows_in: int, tally: Tally, sources: Sources, passed_over: list[str]) -> dict[str, Any]:
    """Return the counts that the manifest holds."""
    return {
        "rows_in": rows_in,
        "written": tally.rows,
        "quarantined": rows_in - tally.rows,
        "complete": tally.complete,
        "incomplete": tally.incomplete,
        "filled": {_NAMES[kind]: tally.filled[kind] for kind in _NAMES},
        "failed": {_NAMES[kind]: tally.failed[kind] for kind in _NAMES},
        "unreadable": [asdict(file) for file in sources.unreadable],
        "notes": [*sources.notes, *passed_over],
    }


def _probe(task: Task, plan: Plan) -> None:
    """Look whether every service that is needed answers; raise BadInput when one does not."""
    if plan.to_ask[CallKind.RAG]:
        probe("RAG service", task.tenant.rag.url)
    if plan.to_ask[CallKind.BASELINE] and task.tenant.baseline.url:
        probe("baseline", task.tenant.baseline.url)


def _print_plan(task: Task, sources: Sources, passed_over: list[str], rows_in: int, plan: Plan) -> None:
    rows, rag = plan.known.rows, task.tenant.rag
    print(f"rows in {rows_in} = usable {rows} + quarantined {rows_in - rows}")
    for note in sources.notes:
        print(f"note: {note}")
    for line in passed_over:
        print(line)
    for file in sources.unreadable:
        print(f"unreadable: {file.file}: {file.reason}")
    table = Table("", "rows that lack it", "in the ledger", "calls to make")
    for kind, name in _NAMES.items():
        lacking, known = plan.lacking[kind], plan.known.filled[kind]
        table.add_row(name, f"{lacking:,}", f"{known:,}", f"{plan.to_ask[kind]:,}")
    Console().print(table)
    print(f"complete already: {plan.known.complete} rows")
    print(f"rewrites: {task.tenant.baseline.url or 'no baseline.url, so rows without one stay so'}")
    print(f"hits: {rag.url}, knowledge base {rag.kb_name}, top_k {task.top_k}")
    if task.judge:
        print(f"judgements: {task.judge.model}, {task.judge.baseline_votes} votes each")
    print(f"ledger: {task.ledger.path}")


def _print_tally(tally: Tally) -> None:
    table = Table("", "rows filled", "rows failed", "requests")
    for kind, name in _NAMES.items():
        table.add_row(name, f"{tally.filled[kind]:,}", f"{tally.failed[kind]:,}", f"{tally.requests[kind]:,}")
    Console().print(table)
    print(f"rows written {tally.rows}, complete already {tally.complete}, incomplete {tally.incomplete}")
    if tally.tokens:
        print(f"judge: {tally.tokens:,.0f} tokens, ¥{tally.cny:,.2f}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.fill_baseline",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    files = "files and folders: BVT exports and logs"
    add("--input", dest="inputs", type=Path, required=True, nargs="+", metavar="PATH", help=files)
    add("--tenant", required=True, help="tenant name, or a tenant YAML file")
    add("--out", type=Path, required=True, metavar="FILE", help="the filled rows (.jsonl)")
    add("--judge", metavar="PROFILE", help="a name in recipes/config/judge, or a YAML file (default: no grades)")
    add("--ledger", type=Path, metavar="FILE", help="ledger of the training (default outputs/rl/TENANT/ledger.sqlite)")
    add("--qrels", type=Path, metavar="FILE", help="relevant documents by query_id, as given to build_rl")
    top_k = FillOptions.top_k
    add("--top-k", type=int, default=top_k, metavar="K", help=f"hits that training asks for (default {top_k})")
    add("--all-rows", action="store_true", help="ask also about what is recorded, so that the ledger has it all")
    add("--rag-url", metavar="URL", help="instead of the tenant's rag.url")
    add("--baseline-url", metavar="URL", help="instead of the tenant's baseline.url")
    add("--requests-per-minute", type=int, metavar="N", help="to retrieval and to the baseline, each (default: YAML's)")
    add("--max-cny", type=float, metavar="YUAN", help="what this command may spend on the judge, earlier runs included")
    add("--max-cny-per-day", type=float, metavar="YUAN", help="what all users of the ledger may spend in a (UTC) day")
    add("--dry-run", action="store_true", help="show what would be asked; ask and write nothing")
    return parser.parse_args(argv)


@command
def main(argv: list[str] | None = None) -> int:
    options = FillOptions(**vars(_parse(argv)))
    return run_until_stopped(lambda: fill_baseline(options), "the answers so far are in the ledger")


if __name__ == "__main__":
    raise SystemExit(main())
