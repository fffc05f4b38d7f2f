"""A workbook of queries in, the same rows with one version's rewrites and what they retrieve out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.bvt.progress import RecordedAnswer
from data_prep.bvt.queries import Queries, read_queries
from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import MOST_ROWS, write_workbook
from data_prep.run_bvt import answered_row
from data_prep.text.cleaning import clean_hits
from evaluation.arena.rounds import TYPED, Retrieve
from evaluation.arena.versions import Version
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.sample import Metadata, Sample
from reward.settings.recipe import TenantSettings


@dataclass(frozen=True)
class BatchCounts:
    """Rows of a batch. `refused`: rows that could not be asked, which are not in the workbook; `first_failure`: ""
    where every row was answered; `left_out`: why each of the refused rows, and the rest of an unreadable file, is."""

    rows: int
    failed: int
    refused: int
    first_failure: str
    left_out: tuple[str, ...] = ()


async def rewrite_workbook(
    source: Path,
    out: Path,
    version: Version,
    retrieve: Retrieve,
    tenant: TenantSettings,
    *,
    most_rows: int = MOST_ROWS,
    on_row: Callable[[int, int], None] = lambda done, total: None,
) -> BatchCounts:
    """Rewrite every query of `source`, retrieve with the rewrite, and write the workbook of a BVT batch test.

    A row that failed keeps its query, and says why in `error`. Queries are cleaned and de-identified first.

    Args:
        source: any file that `data_prep.run_bvt` reads.
        on_row: called with the rows done and their number after every row.

    Raises:
        BadInput: the file cannot be read, holds no query or more than `most_rows`, or every row failed.
    """
    queries = await asyncio.to_thread(read_queries, [source], tenant)
    total, done = len(queries.rows), 0
    if total > most_rows:
        raise BadInput(f"{source.name}: {total} queries; at most {most_rows} at a time")
    slots = asyncio.Semaphore(tenant.rag.max_concurrency)

    async def answer(row: BvtRow) -> BvtRow:
        nonlocal done
        async with slots:
            answered = await _answer(row, version, retrieve, tenant)
        done += 1
        on_row(done, total)
        return answered

    rows = await asyncio.gather(*map(answer, queries.rows))
    counts = _count(rows, queries)
    if counts.failed == total:
        raise BadInput(f"{version.name}: every row failed; the first: {counts.first_failure}")
    await asyncio.to_thread(write_workbook, out, rows)
    return counts


async def _answer(row: BvtRow, version: Version, retrieve: Retrieve, tenant: TenantSettings) -> BvtRow:
    sample = Sample(
        sample_id=TYPED,
        original_query=row.original_query,
        context=row.context,
        metadata=Metadata(tenant_id=tenant.tenant_id, split="test"),
    )
    rewrite = await version.rewrite(sample)
    if isinstance(rewrite, ServiceFailure):
        return row.model_copy(update={"error": rewrite.reason})
    hits = await retrieve(sample, rewrite)
    if isinstance(hits, ServiceFailure):
        return row.model_copy(update={"rewritten_query": rewrite, "error": hits.reason})
    found = clean_hits([hit.model_dump() for hit in hits], tenant.deidentify)
    return answered_row(
        row, RecordedAnswer(key="", hits=found, rewritten_query=rewrite, user_profile="", history_summary="")
    )


def _count(rows: Sequence[BvtRow], queries: Queries) -> BatchCounts:
    failed = [row for row in rows if row.recall_results is None]
    left_out = [f"{one.file}: {one.reason}" for one in queries.unreadable]
    left_out += ["row {row} of {file}: {reason}".format_map(refused) for refused in queries.quarantined]
    first = failed[0].error if failed else ""
    return BatchCounts(len(rows), len(failed), len(queries.quarantined), first, tuple(left_out))
