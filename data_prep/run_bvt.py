"""Asks the live RAG service every BVT query and writes the answers as `test_sft.xlsx` (columns: `data_prep.bvt_row`).

    python -m data_prep.run_bvt --queries queries.jsonl --tenant fivedoctors --out test_sft.xlsx

No rewrite is sent, so the service asks the deployed rewriter: the workbook records what that one does today.
Answers are kept in `<out>.progress.jsonl` as they come: after a kill, or when some calls failed, the same command asks
only what has no answer yet. Once every call has succeeded the workbook and its `<out>.manifest.json` stand for
themselves, and the progress file goes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_prep.artefacts import file_sha256, is_current, settings_sha256, write_manifest
from data_prep.bvt_progress import RecordedAnswer, appending, question_key, read_progress, record_answer
from data_prep.bvt_row import BvtRow
from data_prep.bvt_workbook import write_workbook
from data_prep.read_sources import read_rows, write_quarantine
from reward.call_records import ServiceFailure
from reward.rag_client import RagClient
from reward.records import BadInput, first_problem
from reward.settings import RagSettings, TenantSettings, load_tenant

TOP_K = 5
SCORE_THRESHOLD = 0.0
NO_HIT = "no hit came back"
_PROBE_SECONDS = 5.0


def answered_row(row: BvtRow, answer: RecordedAnswer | ServiceFailure) -> BvtRow:
    """`row` with what came back. No hit is no success; a failed call says why in `error`.

    Scores are the hits' `relevance` (`reranker_score`, else `score`): the first one, and the mean of the first three.
    """
    asked = BvtRow(
        number=row.number,
        original_query=row.original_query,
        user_profile=row.user_profile,
        history_summary=row.history_summary,
        query_id=row.query_id,
        history_context=row.history_context,
        slices=row.slices,
    )
    if isinstance(answer, ServiceFailure):
        return asked.model_copy(update={"recall_count": 0, "error": answer.reason})
    scores = [hit.relevance for hit in answer.hits]
    return asked.model_copy(
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


def probe(url: str) -> None:
    """Any HTTP answer will do.

    Raises:
        BadInput: nothing answers at `url`, or it is no URL.
    """
    try:
        with httpx.Client(timeout=_PROBE_SECONDS, trust_env=False) as http:
            http.get(url)
    except httpx.ReadTimeout:
        return  # somebody listens; how slow an answer may be is for the calls to judge
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise BadInput(f"RAG service {url} is not reachable: {error or type(error).__name__}") from None


async def ask_all(rows: Sequence[BvtRow], tenant: TenantSettings, progress_file: Path) -> tuple[list[BvtRow], int]:
    """The answered rows in order, and the HTTP requests sent.

    Answers found in `progress_file` are used, new ones appended to it, each as soon as it is there.
    """
    questions = {question_key(row, tenant): row for row in rows}
    answers: dict[str, RecordedAnswer | ServiceFailure] = dict(read_progress(progress_file))
    waiting = {key: row for key, row in questions.items() if key not in answers}
    done = len(questions) - len(waiting)
    if done:
        print(f"{done} of {len(questions)} questions are answered already")
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    client = RagClient(tenant.rag, tenant.tenant_id)
    failed = 0
    with (
        appending(progress_file) as record,
        Progress(*columns, TextColumn("{task.fields[failed]} failed"), console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task("", total=len(questions), completed=done, failed=0)
        queue = iter(waiting.items())

        async def work() -> None:
            nonlocal failed
            for key, row in queue:
                answer = await client.retrieve(
                    row.original_query, row.context, top_k=TOP_K, score_threshold=SCORE_THRESHOLD
                )
                if isinstance(answer, ServiceFailure):
                    failed += 1
                    answers[key] = answer
                else:
                    answers[key] = record_answer(record, key, answer)
                bar.update(task, advance=1, failed=failed)

        try:
            await asyncio.gather(*(work() for _ in range(tenant.rag.max_concurrency)))
        finally:
            await client.aclose()
    return [answered_row(row, answers[question_key(row, tenant)]) for row in rows], client.calls


def _with_options(tenant: TenantSettings, url: str | None, concurrency: int | None) -> TenantSettings:
    options = {"url": url, "max_concurrency": concurrency}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        rag = RagSettings.model_validate({**tenant.rag.model_dump(), **given})
    except ValidationError as error:
        raise BadInput(f"command line: {first_problem(error)}") from None
    return tenant.model_copy(update={"rag": rag})


def _run(args: argparse.Namespace) -> None:
    tenant = _with_options(load_tenant(args.tenant), args.rag_url, args.concurrency)
    out: Path = args.out
    if out.suffix != ".xlsx":
        raise BadInput(f"{out}: --out must end in .xlsx")
    progress_file = out.with_name(out.name + ".progress.jsonl")
    manifest = out.with_name(out.name + ".manifest.json")
    source = read_rows(args.queries, ("original_query",))
    if not source.rows:
        bad = source.quarantined[0]
        raise BadInput(f"{args.queries}: no query can be asked; row {bad.row}: {bad.reason}")
    # How fast and how often we ask does not change what we ask.
    asked = tenant.rag.model_dump(include={"url", "kb_name"})
    request = {"input_sha256": file_sha256(args.queries), "tenant_id": tenant.tenant_id, **asked}
    if not progress_file.exists() and is_current(manifest, request):
        print(f"{out}: finished for {args.queries}, nothing to do (delete it to ask again)")
        return
    probe(tenant.rag.url)
    start = time.monotonic()
    rows, calls = asyncio.run(ask_all(source.rows, tenant, progress_file))
    seconds = time.monotonic() - start
    failed = [row for row in rows if row.error not in ("", NO_HIT)]
    scores = [row.top1_score for row in rows if row.top1_score is not None]
    facts = {
        "rows": len(rows),
        "success": sum(row.success for row in rows),
        "without_hit": sum(row.error == NO_HIT for row in rows),
        "failed_calls": len(failed),
        "mean_top1_score": round(fmean(scores), 4) if scores else None,
    }
    write_workbook(out, rows)
    if source.quarantined:
        write_quarantine(out.with_name(out.name + ".quarantine.jsonl"), source.quarantined)
    write_manifest(manifest, request, [out], {**facts, "tenant_sha256": settings_sha256(tenant)})
    if not failed:
        progress_file.unlink()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"written: {out} ({calls} requests in {seconds:.1f} s)")
    if source.quarantined:
        first = source.quarantined[0]
        print(f"quarantined: {len(source.quarantined)} rows; the first is row {first.row}: {first.reason}")
    if failed and len(failed) == len(rows):
        raise BadInput(f"RAG service {tenant.rag.url}: every call failed; the first: {failed[0].error}")
    if failed:
        print("run the same command again: it asks the failed ones only")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.run_bvt",
        description="Ask the live RAG service every query of FILE and write the answers as an xlsx; resumable.",
    )
    parser.add_argument(
        "--queries",
        type=Path,
        required=True,
        help=".jsonl, .csv or .xlsx with query (or original_query) and, when known, query_id, user_profile, "
        "history_summary, history_context, slices",
    )
    parser.add_argument("--tenant", required=True, help="tenant name, or a tenant YAML file")
    parser.add_argument("--out", type=Path, required=True, help="the workbook to write (.xlsx)")
    parser.add_argument("--rag-url", help="instead of the tenant's rag.url")
    parser.add_argument("--concurrency", type=int, help="calls in flight, instead of the tenant's rag.max_concurrency")
    try:
        _run(parser.parse_args(argv))
    except (BadInput, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the answers so far are kept; run the same command to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
