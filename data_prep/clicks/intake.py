"""From click logs to a spool: every row in, normalised and de-identified, in one Parquet file on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from data_prep.clicks.feedback_file import CLICKS, read_clicks
from data_prep.readers.sources import Unreadable, find_files, passed_over, unreadable
from data_prep.rows.remarks import PassedOver
from data_prep.text.cleaning import clean_batch
from data_prep.text.deidentify import deidentify_text
from data_prep.text.normalise import normalise_lines
from guard.personal.masking import mask_id, mask_message
from reward.records.files import BadInput, read_jsonl
from reward.settings.data import DeidentifySettings
from reward.settings.recipe import TenantSettings

SPOOL = CLICKS.append(pa.field("id", pa.int64()))
_FREE_TEXTS = {  # → whether line breaks stay
    "original_query": False,
    "rewritten_query": False,
    "user_profile": False,
    "history_summary": False,
    "history_context": True,
    "passage": True,
}


class Feedback:
    """The click rows of files and folders (`sources.find_files`).

    Args:
        paths: files and folders.
        tenant: whose headings (`sources.headings`, heading → column of a click row or of any export) and rules of
            de-identification apply.

    Raises:
        BadInput: no such path, or nothing readable in it.
    """

    def __init__(self, paths: Sequence[Path], tenant: TenantSettings):
        self._paths, self.files = paths, find_files(paths)
        self.unreadable: list[Unreadable] = []
        self.notes: list[str] = []
        self.passed_over: list[str] = []
        self._tenant = tenant

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows (schema `CLICKS`) in the order of the files. A file that cannot be read is recorded in
        `unreadable`, what else a user should know of the files in `notes`.

        Raises:
            BadInput: no file could be read.
        """
        self.notes += passed_over(self._paths)
        for file in self.files:
            try:
                yield from read_clicks(file, self._tenant.sources.headings, self.notes)
            except BadInput as problem:
                self.unreadable.append(unreadable(file, problem))
        self.notes[:] = [mask_message(note, keep=[str(file) for file in self.files]) for note in self.notes]
        if len(self.unreadable) == len(self.files):
            first = self.unreadable[0]
            more = f" ({len(self.files)} files, none of them readable)" if len(self.files) > 1 else ""
            raise BadInput(f"{first.file}: {first.reason}{more}")

    def spool(self, path: Path) -> Counter[str]:
        """Write every row to the Parquet file `path`, normalised and de-identified, `id` counting from 0.

        Returns:
            Personal data masked, by kind. What of usable rows was passed over is in `passed_over` then.

        Raises:
            BadInput: no file could be read.
        """
        remarked = PassedOver()
        rows, masked = 0, Counter[str]()
        columns = (TextColumn("reading"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
        console = Console(stderr=True)
        with (
            pq.ParquetWriter(path, SPOOL, compression="zstd") as out,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            task = bar.add_task("", total=None)
            for batch in self.batches():
                cleaned, found = clean_batch(batch, _FREE_TEXTS, self._tenant.deidentify)
                masked += found
                remarked.add(cleaned)
                ids = pa.array(range(rows, rows + batch.num_rows), pa.int64())
                out.write_batch(cleaned.append_column("id", ids))
                rows += batch.num_rows
                bar.update(task, completed=rows)
        self.passed_over = remarked.lines()
        return masked


def read_corpus(path: Path, settings: DeidentifySettings) -> dict[str, str]:
    """Read doc_id → passage from a BEIR `corpus.jsonl` (_id, text, perhaps title), normalised and de-identified.

    Raises:
        BadInput: no such file, or a line that holds no passage (names file, row and field).
    """
    passages: dict[str, str] = {}
    for row, document in read_jsonl(path):
        doc_id, text = document.get("_id", document.get("doc_id")), document.get("text")
        if not isinstance(doc_id, str | int) or not str(doc_id).strip():
            raise BadInput(f"{path}: row {row}: _id: missing")
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f"{path}: row {row}: text: missing")
        whole = normalise_lines(f"{document.get('title') or ''}\n{text}")
        passages[mask_id(str(doc_id).strip())] = deidentify_text(whole, settings)[0]
    return passages
