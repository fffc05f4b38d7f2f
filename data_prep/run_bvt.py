"""Ask the live RAG service every BVT query and write the answers as `test_sft.xlsx`, one row a query.

    python -m data_prep.run_bvt --queries queries.jsonl --tenant fivedoctors --out test_sft.xlsx

No rewrite is sent, so the service asks the deployed rewriter: the workbook records what that one does today.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from data_prep.baseline.asking import AskingBar, ask_each, probe, run_until_stopped, with_options
from data_prep.bvt.progress import RecordedAnswer, appending, question_key, read_progress, record_answer
from data_prep.bvt.queries import Queries, read_queries
from data_prep.bvt.row import NO_HIT, BvtRow
from data_prep.bvt.workbook import MOST_ROWS, write_workbook
from data_prep.dataset.artefacts import is_current, settings_sha256, write_manifest
from data_prep.readers.sources import write_quarantine
from reward.records.call import ServiceFailure
from reward.records.commands import command
from reward.records.files import BadInput, file_sha256
from reward.services.rag_client import RagClient
from reward.settings.recipe import TenantSettings, load_tenant
from reward.settings.services import RagSettings

TOP_K = 5
SCORE_THRESHOLD = 0.0

_MANUAL = """\
what is read
  Files and folders: .xlsx .xlsm .xls .csv .jsonl .log, also .gz .zst. A column `query` (original_query, 原始查询, …)
  must be there; query_id, user_profile, history_summary, history_context and slices are taken when they are.
  Rows in = rows asked + rows quarantined. Rows that agree in query and context need one call.

what is written
  <out>                     the workbook, a row for every row asked: original_query, user_profile, history_summary,
                            rewritten_query, recall_results (JSON), recall_count, top1_score, avg_top3_score, success;
                            query_id, history_context, slices, error. A call that failed, and one that found nothing,
                            leaves success FALSE and its reason in `error`; a failed one leaves no counts or scores.
  <out>.manifest.json       counts, and hashes of input, settings and workbook
  <out>.quarantine.jsonl    file, sheet, row, reason of every row that could not be asked (only if there are any)
  <out>.progress.jsonl      the answers as they come, until every call has succeeded

stopping and resuming
  After Ctrl-C, SIGTERM or kill -9, and when calls have failed, the same command asks only what has no answer yet.
  A finished workbook is left alone: delete it to ask again.

limits and retries (tenant YAML, `rag`)
  max_concurrency, requests_per_minute, timeout, attempts, backoff. A minute never sees more requests than allowed,
  retries included.

examples
  python -m data_prep.run_bvt --queries bvt/ more.csv --tenant fivedoctors --out test_sft.xlsx --dry-run
  python -m data_prep.run_bvt --queries bvt.xlsx --tenant chengla --out test_sft.xlsx \\
      --rag-url http://10.0.0.7:8000 --concurrency 4 --requests-per-minute 120

exit codes
  0 the workbook is written (calls that failed are counted in the last lines), or there was nothing to do
  2 bad input, service not reachable, or every call failed: one line says which
  130, 143 stopped by Ctrl-C or SIGTERM
"""


def answered_row(row: BvtRow, answer: RecordedAnswer | ServiceFailure) -> BvtRow:
    """Add what came back to `row`. No hit is no success; a failed call says why in `error` and has no scores.

    Scores are the hits' `relevance` (`reranker_score`, else `score`): the first one, and the mean of the first three.
    """
    if isinstance(answer, ServiceFailure):
        return row.model_copy(update={"error": answer.reason})
    scores = [hit.relevance for hit in answer.hits]
    return row.model_copy(
        update={
            "user_profile": answer.user_profile or row.user_profile,
            "history_summary": answer.history_summary or row.history_summary,
            "rewritten_query": answer.rewritten_query,
            "recall_results": answer.hits,
            "recall_count": len(scores),
            "top1_score": scores[0] if scores else None,
            "avg_top3_score": fmean(scores[:3]) if scores else None,
            "success": bool(scores),
            "error": "" if scores else NO_HIT,
        }
    )


async def ask_all(rows: Sequence[BvtRow], tenant: TenantSettings, progress_file: Path) -> tuple[list[BvtRow], int]:
    """Ask what has no answer yet; return the answered rows in order, and the HTTP requests sent.

    Answers found in `progress_file` are used, new ones appended to it, each as soon as it is there.

    Raises:
        Stopped: a signal came.
        OSError: an answer could not be kept.
    """
    keys = [question_key(row, tenant) for row in rows]
    questions = dict(zip(keys, rows, strict=True))
    answers: dict[str, RecordedAnswer | ServiceFailure] = dict(read_progress(progress_file))
    waiting = [question for question in questions.items() if question[0] not in answers]
    done = len(questions) - len(waiting)
    client = RagClient(tenant.rag, tenant.tenant_id)
    try:
        with appending(progress_file) as record, AskingBar(len(questions), done) as bar:

            async def ask(question: tuple[str, BvtRow]) -> None:
                key, row = question
                answer, _ = await client.retrieve(
                    row.original_query, row.context, top_k=TOP_K, score_threshold=SCORE_THRESHOLD
                )
                if isinstance(answer, ServiceFailure):
                    answers[key] = answer
                else:
                    answers[key] = record_answer(record, key, answer, tenant.deidentify)
                bar.advance(failed=isinstance(answer, ServiceFailure))

            await ask_each(waiting, ask, lambda _: None, at_once=tenant.rag.max_concurrency)
    finally:
        await client.aclose()
    return [answered_row(row, answers[key]) for key, row in zip(keys, rows, strict=True)], client.calls


@dataclass(frozen=True, kw_only=True)
class BvtOptions:
    """What to ask, of which tenant's service, and where the workbook goes; None leaves a value to the tenant's YAML.

    Args:
        queries: files and folders that hold the queries.
        tenant: its name, or its YAML file.
        out: the workbook (.xlsx).
        concurrency: calls in flight at a time.
        dry_run: print what would be asked, ask and write nothing.
    """

    queries: Sequence[Path]
    tenant: str
    out: Path
    rag_url: str | None = None
    concurrency: int | None = None
    requests_per_minute: int | None = None
    dry_run: bool = False


def run_bvt(options: BvtOptions) -> None:
    """Ask every query that has no answer yet and write the workbook; print what was done.

    Raises:
        BadInput: an option or a file cannot be used, the service is not reachable, or every call failed.
        Stopped: a signal came; the answers so far are kept.
    """
    out = options.out
    if out.suffix != ".xlsx":
        raise BadInput(f"{out}: --out must end in .xlsx")
    tenant = _tenant(options)
    progress_file = out.with_name(out.name + ".progress.jsonl")
    manifest = out.with_name(out.name + ".manifest.json")

    # Read the questions before anything is asked: an unusable file costs no call.
    queries = read_queries(options.queries, tenant)
    if len(queries.rows) > MOST_ROWS:
        raise BadInput(f"{len(queries.rows)} queries: a workbook holds {MOST_ROWS}; ask fewer files at a time")
    _print_reading(queries)

    # How fast and how often we ask is no part of the request: it does not change what we ask.
    service = tenant.rag.model_dump(include={"url", "kb_name", "kb_version"})
    hashes = [file_sha256(file) for file in queries.files]
    request = {"queries_sha256": hashes, "tenant_id": tenant.tenant_id, **service}
    finished = not progress_file.exists() and is_current(manifest, request)
    questions = {question_key(row, tenant) for row in queries.rows}
    answered = len(questions) if finished else len(questions & read_progress(progress_file).keys())
    to_ask = len(questions) - answered
    print(f"different questions {len(questions)}: answered already {answered}, to ask {to_ask}")
    if options.dry_run:
        print(f"dry run: nothing asked, nothing written (service {tenant.rag.url}, {_pace(tenant.rag)})")
        return
    if finished:
        print(f"{out}: finished, nothing to do (delete it to ask again)")
        return

    # One look at the service first: thousands of calls would fail one after the other.
    if to_ask:
        probe("RAG service", tenant.rag.url)
    start = time.monotonic()
    rows, calls = asyncio.run(ask_all(queries.rows, tenant, progress_file))
    print(f"{calls} requests in {time.monotonic() - start:.1f} s")
    _write(out, manifest, rows, queries, request, settings_sha256(tenant))

    # Answers kept beside the workbook are needed only while some are missing.
    failed = [row for row in rows if row.recall_results is None]
    if not failed:
        progress_file.unlink()
    elif len(failed) == len(rows):
        raise BadInput(f"RAG service {tenant.rag.url}: every call failed; the first: {failed[0].error}")
    else:
        print("run the same command again: it asks the failed ones only")


def _tenant(options: BvtOptions) -> TenantSettings:
    """Load the tenant's settings with the options that were given in place of its own."""
    given = load_tenant(options.tenant)
    pace = {"max_concurrency": options.concurrency, "requests_per_minute": options.requests_per_minute}
    return given.model_copy(update={"rag": with_options(given.rag, {"url": options.rag_url, **pace})})


def _write(
    out: Path, manifest: Path, rows: Sequence[BvtRow], queries: Queries, request: dict[str, Any], tenant_sha256: str
) -> None:
    """Write the workbook, its quarantine and, last, its manifest; print the counts."""
    counts = _counts(rows)
    write_workbook(out, rows)
    quarantine = out.with_name(out.name + ".quarantine.jsonl")
    quarantine.unlink(missing_ok=True)
    if queries.quarantined or queries.unreadable:
        write_quarantine(quarantine, queries.unreadable, queries.quarantined)
    found = {
        "unreadable": [asdict(file) for file in queries.unreadable],
        "notes": [*queries.notes, *queries.passed_over],
    }
    header = {**queries.accounts, **counts, **found, "tenant_sha256": tenant_sha256}
    write_manifest(manifest, request, [out], header)
    print(", ".join(f"{name} {value}" for name, value in counts.items()))
    print(f"written: {out}")


def _counts(rows: Sequence[BvtRow]) -> dict[str, int | float | None]:
    scores = [row.top1_score for row in rows if row.top1_score is not None]
    return {
        "success": sum(row.success for row in rows),
        "without_hit": sum(row.error == NO_HIT for row in rows),
        "failed_calls": sum(row.recall_results is None for row in rows),
        "mean_top1_score": round(fmean(scores), 4) if scores else None,
    }


def _pace(settings: RagSettings) -> str:
    rate = settings.requests_per_minute
    return f"at most {settings.max_concurrency} at a time" + (f", {rate} a minute" if rate else "")


def _print_reading(queries: Queries) -> None:
    accounts = queries.accounts
    print("rows in {rows_in} = asked {asked} + quarantined {quarantined}".format_map(accounts))
    for note in queries.notes:
        print(f"note: {note}")
    for line in queries.passed_over:
        print(line)
    for file in queries.unreadable:
        print(f"unreadable: {file.file}: {file.reason}")
    if queries.quarantined:
        first = queries.quarantined[0]
        print(f"quarantined: the first is row {first['row']} of {first['file']}: {first['reason']}")


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.run_bvt",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--queries", type=Path, required=True, nargs="+", metavar="PATH", help="files and folders")
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the workbook to write (.xlsx)")
    parser.add_argument("--rag-url", metavar="URL", help="instead of the tenant's rag.url")
    parser.add_argument("--concurrency", type=int, metavar="N", help="calls in flight, instead of rag.max_concurrency")
    parser.add_argument(
        "--requests-per-minute", type=int, metavar="N", help="instead of rag.requests_per_minute (default: no limit)"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be asked; ask and write nothing")
    options = BvtOptions(**vars(parser.parse_args(argv)))
    return run_until_stopped(lambda: run_bvt(options), "the answers so far are kept")


if __name__ == "__main__":
    raise SystemExit(main())
