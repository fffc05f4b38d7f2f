"""Normalising, filtering and de-duplicating rows (spec 1, "Cleaning"). Pure; every step counts what it lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from data_prep.bvt_row import BvtRow
from data_prep.normalise import normalise_line, normalise_lines
from reward.settings import FilterSettings


@dataclass(frozen=True)
class Stage:
    """One step of the retention funnel."""

    name: str
    rows_in: int
    rows_out: int


@dataclass(frozen=True)
class Filter:
    name: str
    keeps: Callable[[BvtRow], bool]


def normalise_row(row: BvtRow) -> BvtRow:
    """A copy of `row` with its texts normalised; only the dialogue keeps its lines."""
    lines = ("original_query", "user_profile", "history_summary", "rewritten_query")
    changes: dict[str, Any] = {name: normalise_line(getattr(row, name)) for name in lines}
    return row.model_copy(update={**changes, "history_context": normalise_lines(row.history_context)})


def imitation_filters(settings: FilterSettings) -> list[Filter]:
    """What SFT learns from: answered, well retrieved, really rewritten, of sane length (characters, inclusive)."""
    return [
        Filter("success", lambda r: r.success),
        Filter(
            f"top1_score ≥ {settings.min_top1_score:g}",
            lambda r: r.top1_score is not None and r.top1_score >= settings.min_top1_score,
        ),
        Filter("rewrite present", lambda r: bool(r.rewritten_query)),
        Filter("rewrite differs", lambda r: r.rewritten_query != r.original_query),
        _query_length(settings),
        _rewrite_length(settings),
        Filter(
            f"rewrite ≤ {settings.max_length_ratio:g} × query",
            lambda r: len(r.rewritten_query) <= settings.max_length_ratio * len(r.original_query),
        ),
    ]


def competition_filters(settings: FilterSettings) -> list[Filter]:
    """What RL competes on: hard rows stay (no score, no ratio), and so does a row without a recorded rewrite."""
    return [Filter("success", lambda r: r.success), _query_length(settings), _rewrite_length(settings)]


def _query_length(settings: FilterSettings) -> Filter:
    low, high = settings.query_length
    return Filter(f"query {low}–{high} characters", lambda r: low <= len(r.original_query) <= high)


def _rewrite_length(settings: FilterSettings) -> Filter:
    low, high = settings.rewrite_length
    return Filter(
        f"rewrite {low}–{high} characters", lambda r: not r.rewritten_query or low <= len(r.rewritten_query) <= high
    )


def apply_filters(rows: Sequence[BvtRow], filters: Iterable[Filter]) -> tuple[list[BvtRow], list[Stage]]:
    """The rows that pass every filter, in order, and what each filter let through."""
    kept, stages = list(rows), []
    for step in filters:
        passed = [row for row in kept if step.keeps(row)]
        stages.append(Stage(step.name, len(kept), len(passed)))
        kept = passed
    return kept, stages


def deduplicate(rows: Sequence[BvtRow], worth: Callable[[BvtRow], float]) -> tuple[list[BvtRow], Stage]:
    """One row for each (query, context), letter case aside: the worthiest, the earliest among equals; in source order.

    The same words in another context are another question, so they stay.
    """
    groups = groupby(sorted(rows, key=_identity), key=_identity)
    best = sorted((max(group, key=worth) for _, group in groups), key=lambda row: row.number)
    return best, Stage("duplicates removed", len(rows), len(best))


def _identity(row: BvtRow) -> tuple[str, str, str, str]:
    return row.original_query.casefold(), row.user_profile, row.history_summary, row.history_context
