"""The steps that a row must pass: what SFT imitates, what RL competes on. Lengths in characters."""

from __future__ import annotations

from datetime import date, timedelta

from data_prep.dataset.selection import Step
from data_prep.rows.sql import literal
from reward.settings.data import FilterSettings
from reward.settings.recipe import TenantSettings

NO_SCORE = "top1_score is not recorded"  # the reason of a row whose retrieval nobody recorded
_LOG = "source = 'production_log'"
_OK = f"CASE WHEN success IS NULL AND {_LOG} THEN rewritten_query <> '' ELSE success END"
_FAILED = """CASE WHEN success IS NULL THEN 'success is not recorded'
    WHEN error <> '' THEN 'not a success: ' || error ELSE 'not a success' END"""


def intake_steps(tenant: TenantSettings, since: date | None, until: date | None) -> list[Step]:
    """Keep what is readable, of this tenant and, for a production log, of these days (both inclusive)."""
    steps = [
        Step("readable", "refused = ''", "refused"),
        Step(
            "of this tenant",
            f"tenant_id IN ('', {literal(tenant.tenant_id)})",
            "'belongs to tenant ' || tenant_id",
        ),
    ]
    if since is not None and until is not None:
        day = "left(timestamp, 10)"
        inside = f"{day} BETWEEN '{since.isoformat()}' AND '{until.isoformat()}'"
        steps.append(
            Step(
                f"logged {since.isoformat()} to {until.isoformat()}",
                f"NOT ({_LOG}) OR timestamp = '' OR {inside}",
                f"'logged on ' || {day}",
            )
        )
    return steps


def log_window(
    newest: date | None, days: int, since: date | None, until: date | None
) -> tuple[date | None, date | None]:
    """Return the first and last day of production logs to take: what is asked for, else `days` days up to the newest
    line."""
    until = until or newest
    if until is None:
        return since, until
    return since or until - timedelta(days=days - 1), until


def imitation_steps(settings: FilterSettings) -> list[Step]:
    """Keep what SFT learns from: answered, well retrieved, really rewritten, of sane length."""
    score = f"top1_score >= {settings.min_top1_score}"
    return [
        Step("success", _OK, _FAILED),
        Step(
            f"top1_score ≥ {settings.min_top1_score:g}",
            f"{score} OR top1_score IS NULL" if settings.keep_unscored else score,
            f"""CASE WHEN top1_score IS NULL THEN '{NO_SCORE}'
            ELSE 'top1_score ' || round(top1_score, 4) || ' < {settings.min_top1_score:g}' END""",
        ),
        Step("rewrite present", "rewritten_query <> ''", "'no rewritten_query'"),
        Step("rewrite differs", "rewritten_query <> original_query", "'rewritten_query equals original_query'"),
        _query_length(settings),
        _rewrite_length(settings),
        Step(
            f"rewrite ≤ {settings.max_length_ratio:g} × query",
            f"length(rewritten_query) <= {settings.max_length_ratio} * length(original_query)",
            "'rewritten_query has ' || length(rewritten_query) || ' characters, the query ' || length(original_query)",
        ),
    ]


def competition_steps(settings: FilterSettings) -> list[Step]:
    """Keep what RL competes on: hard rows stay (no score, no ratio), and so does a row without a recorded rewrite."""
    answered = f"CASE WHEN {_LOG} THEN coalesce(success, true) ELSE success END"
    return [Step("success", answered, _FAILED), _query_length(settings), _rewrite_length(settings)]


def _query_length(settings: FilterSettings) -> Step:
    low, high = settings.query_length
    return Step(
        f"query {low}–{high} characters",
        f"length(original_query) BETWEEN {low} AND {high}",
        "'original_query has ' || length(original_query) || ' characters'",
    )


def _rewrite_length(settings: FilterSettings) -> Step:
    low, high = settings.rewrite_length
    return Step(
        f"rewrite {low}–{high} characters",
        f"rewritten_query = '' OR length(rewritten_query) BETWEEN {low} AND {high}",
        "'rewritten_query has ' || length(rewritten_query) || ' characters'",
    )
