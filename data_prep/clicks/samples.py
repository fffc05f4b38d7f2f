"""Turn click evidence into what trainers read: records for the reranker's, RL prompts for the rewriter's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.clicks.evidence import ClickEvidence
from data_prep.questions.near_duplicates import near_duplicate_groups
from data_prep.questions.split import RL_SHARES, Split, assign_splits, leaks
from reward.records.sample import Candidates, Context, Metadata, Sample
from reward.settings.recipe import TenantSettings

PROMPT_STYLE = "click_log"  # a user's own words, not a generated question


def reranker_records(evidence: ClickEvidence, tenant: TenantSettings) -> Iterator[dict[str, Any]]:
    """Yield queries with at least one positive passage whose text is known, as the reranker trainer reads them.

    `source_chunk` is empty: no passage gave rise to the question. Positives come surest first."""
    for query, pairs in groupby(evidence.pairs(), key=lambda pair: pair["query"]):
        passages: dict[str, list[dict[str, str]]] = {"positive": [], "negative": []}
        for pair in pairs:
            if pair["text"]:
                passages[pair["verdict"]].append({"doc_id": pair["doc_id"], "text": pair["text"]})
        if passages["positive"]:
            yield {
                "query_text": query,
                "positives": passages["positive"],
                "negatives": passages["negative"],
                "source_chunk": "",
                "meta": {"domain": tenant.tenant_id, "prompt_style": PROMPT_STYLE},
            }


def prompt_samples(evidence: ClickEvidence, tenant: TenantSettings, seed: int) -> tuple[list[Sample], int]:
    """Make RL prompts, each with its split; return them, and how many were dropped as too close to a held-out one."""
    rows = list(evidence.prompts())
    queries = pa.array([row["original_query"] for row in rows], pa.string())
    splits = assign_splits(queries, RL_SHARES, seed).to_pylist()
    threshold = tenant.filters.near_duplicate
    leaking = np.zeros(len(rows), dtype=bool)
    if threshold is not None and rows:
        leaking = leaks(np.asarray(splits), near_duplicate_groups(queries, threshold))
    stay = [(row, split) for row, split, leak in zip(rows, splits, leaking, strict=True) if not leak]
    samples = [_sample(row, n, split, tenant) for n, (row, split) in enumerate(stay, start=1)]
    return samples, len(rows) - len(samples)


def _sample(row: Mapping[str, Any], n: int, split: Split, tenant: TenantSettings) -> Sample:
    return Sample(
        sample_id=f"{tenant.short_id}_rl_click_{n:03d}",
        original_query=row["original_query"],
        context=Context(
            user_profile=row["user_profile"],
            history_summary=row["history_summary"],
            history_context=row["history_context"],
        ),
        metadata=Metadata(
            source="production_log",
            timestamp=row["timestamp"],
            tenant_id=tenant.tenant_id,
            split=split,
            slices=(row["kind"],),
        ),
        candidates=Candidates(baseline=row["rewritten_query"]),
        relevant_doc_ids=tuple(row["relevant"]),
    )
