"""What of a row a sample is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_prep.questions.split import Split
from data_prep.text.cleaning import clean_hits
from reward.records.sample import Context, Hit, Metadata
from reward.settings.data import DeidentifySettings
from reward.settings.recipe import TenantSettings

# Of `columns.ROWS`. Recorded hits are most of a row's bytes: they are read only where they are asked for.
OF_SAMPLE = (
    *("original_query", "rewritten_query"),
    *("user_profile", "history_summary", "history_context", "thought_unit"),
    *("source", "timestamp", "model", "quality_score", "top1_score", "recall_count", "slices"),
)


def context_of(row: Mapping[str, Any]) -> Context:
    return Context(
        user_profile=row["user_profile"],
        history_summary=row["history_summary"],
        history_context=row["history_context"],
        thought_unit=row["thought_unit"],
    )


def metadata_of(row: Mapping[str, Any], tenant: TenantSettings, split: Split) -> Metadata:
    return Metadata(
        source=row["source"],
        timestamp=row["timestamp"],
        model=row["model"],
        quality_score=row["quality_score"],
        tenant_id=tenant.tenant_id,
        top1_score=row["top1_score"],
        recall_count=row["recall_count"],
        split=split,
        slices=tuple(row["slices"] or ()),
    )


def hits_of(row: Mapping[str, Any], settings: DeidentifySettings) -> tuple[Hit, ...]:
    """Read a row's recorded hits and de-identify them."""
    return clean_hits(json.loads(row["recall_results"] or "[]"), settings)
