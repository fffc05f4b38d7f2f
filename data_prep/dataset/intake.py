"""From the customer's files to a spool: every row in, normalised and de-identified, in one Parquet file on disk.

Later stages read the spool column by column, so that long dialogues and recorded hits are never in memory all at once.
"""

from __future__ import annotations

import ctypes
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from data_prep.readers.sources import Sources
from data_prep.rows.bare_rewrites import DOUBTFUL, bare_rewrite
from data_prep.rows.columns import ROWS
from data_prep.rows.remarks import Remarks, remark
from data_prep.text.cleaning import FREE_TEXTS, clean_batch
from plain_text.thinking import TAGS, without_thinking
from reward.settings.data import DeidentifySettings

_BATCH = 20_000
_AROUND = ["original_query", "history_summary", "history_context"]
_LIBC = ctypes.CDLL("libc.so.6") if platform.libc_ver()[0] == "glibc" else None
SPOOL = ROWS.append(pa.field("id", pa.int64()))


@dataclass(frozen=True)
class Intake:
    """`masked`: personal data masked, by kind."""

    rows_in: int
    masked: Counter[str]


def take_in(sources: Sources, settings: DeidentifySettings, spool: Path) -> Intake:
    """Write every row of `sources` to `spool`, `id` counting from 0.

    Raises:
        BadInput: no file could be read.
    """
    raw = spool.with_name("raw.parquet")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        # All is read before anything is cleaned: workbooks and the dictionaries that know names are large, each alone.
        with pq.ParquetWriter(raw, ROWS, compression="zstd") as out:
            task = bar.add_task("reading", total=None)
            for batch in sources.batches():
                out.write_batch(batch)
                bar.advance(task, batch.num_rows)
                del batch
                give_back()
        task = bar.add_task("cleaning", total=None)
        rows, masked = 0, Counter[str]()
        with pq.ParquetFile(raw) as read, pq.ParquetWriter(spool, SPOOL, compression="zstd") as out:
            for batch in read.iter_batches(_BATCH):
                batch = _bare(batch)
                cleaned, found = clean_batch(batch, FREE_TEXTS, settings)
                masked += found
                out.write_batch(cleaned.append_column("id", pa.array(range(rows, rows + batch.num_rows), pa.int64())))
                rows += batch.num_rows
                bar.update(task, completed=rows)
    raw.unlink()
    return Intake(rows, masked)


def _bare(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Strip what a model printed around its recorded rewrites, its thinking included, and remark on each."""
    name = "rewritten_query"
    rewrites = batch.column(name)
    doubtful = pc.indices_nonzero(pc.match_substring_regex(rewrites, f"{TAGS}|{DOUBTFUL}"))
    if not len(doubtful):
        return batch
    texts, found = rewrites.to_pylist(), Remarks()
    around = batch.select(_AROUND).take(doubtful).to_pylist()
    for place, asked in zip(doubtful.to_pylist(), around, strict=True):
        told = without_thinking(texts[place])
        remark(found, place, name, ["<think> stripped"] if told != texts[place] else [])
        texts[place], said = bare_rewrite(told, *asked.values())
        remark(found, place, name, said)
    if not found:
        return batch
    remarks = [[*(said or []), *found.get(place, [])] for place, said in enumerate(batch.column("remarks").to_pylist())]
    for column, values in ((name, texts), ("remarks", remarks)):
        index = batch.schema.get_field_index(column)
        batch = batch.set_column(index, batch.schema.field(index), pa.array(values, batch.schema.field(index).type))
    return batch


def give_back() -> None:
    """Return to the machine what has been freed: Arrow and glibc keep it for themselves, and the next stage may use
    another allocator."""
    pa.default_memory_pool().release_unused()
    if _LIBC is not None:
        _LIBC.malloc_trim(0)
