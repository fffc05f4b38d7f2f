"""The border that every row passes before anything of it is written, printed or asked about: one spelling, and no
personal data in any column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.text.deidentify import deidentify_column, replace_personal
from data_prep.text.normalise import normalise_column
from guard.personal.masking import mask_id, mask_message
from reward.records.sample import Hit
from reward.settings.data import DeidentifySettings

# The passages in recall_results are masked where they are written (`clean_hits`): few are.
FREE_TEXTS = {  # → whether line breaks stay
    "original_query": False,
    "user_profile": False,
    "history_summary": False,
    "history_context": True,
    "thought_unit": True,
    "rewritten_query": False,
}
# What is no free text but may quote one, or be one that was put into the wrong column.
LONGEST_TEXT = 100_000  # characters of a cell: a dialogue of hours has less
MESSAGES = ("sheet", "refused", "remarks", "error", "model", "tenant_id", "slices")
IDS = ("query_id", "doc_id", "request_id")


def clean_batch(
    batch: pa.RecordBatch, free_texts: Mapping[str, bool], settings: DeidentifySettings
) -> tuple[pa.RecordBatch, Counter[str]]:
    """Return `batch` with its free texts normalised and de-identified, and what was masked there, by kind.

    Personal data in every other column of texts is masked too, but for the file's name and recorded hits.

    Args:
        free_texts: column → whether its line breaks stay.
    """
    masked = Counter[str]()
    batch = _without_endless_texts(batch)
    for name, keep_lines in free_texts.items():
        place = batch.schema.get_field_index(name)
        texts = normalise_column(batch.column(place), keep_lines=keep_lines)
        texts, found = deidentify_column(texts, settings)
        masked += found
        batch = batch.set_column(place, batch.schema.field(place), texts)
    for names, mask in ((MESSAGES, mask_message), (IDS, mask_id)):
        for name in set(names) & set(batch.schema.names):
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, batch.schema.field(place), replace_personal(batch.column(place), mask))
    return batch, masked


def _without_endless_texts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Empty every text longer than `LONGEST_TEXT` and refuse its row: one cell costs its row, and no more time."""
    refused = batch.column("refused")
    for name in (*FREE_TEXTS, *MESSAGES, *IDS, "passage"):
        place = batch.schema.get_field_index(name)
        if place < 0:
            continue
        texts = batch.column(place)
        if not pa.types.is_string(texts.type):
            continue
        endless = pc.fill_null(pc.greater(pc.utf8_length(texts), LONGEST_TEXT), False)
        if not endless.true_count:
            continue
        reason = f"{name}: longer than {LONGEST_TEXT:,} characters"
        refused = pc.if_else(pc.and_(endless, pc.equal(refused, "")), reason, refused)
        batch = batch.set_column(place, batch.schema.field(place), pc.if_else(endless, "", texts))
    place = batch.schema.get_field_index("refused")
    return batch.set_column(place, batch.schema.field(place), refused)


def clean_hits(hits: Iterable[Mapping[str, Any]], settings: DeidentifySettings) -> tuple[Hit, ...]:
    """De-identify the passages and ids of recorded hits (content, score, reranker_score, doc_id)."""

    def masked(content: str) -> str:
        return mask_message(content, settings.keep, settings.kinds)

    def masked_id(doc_id: str | None) -> str | None:
        return None if doc_id is None else mask_id(doc_id)

    return tuple(
        Hit(**{**hit, "content": masked(hit["content"]), "doc_id": masked_id(hit.get("doc_id"))}) for hit in hits
    )
