"""The same rows as CSV, all of them, and as Markdown, the most telling ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.inspection.choice import Counts
from evaluation.inspection.rows import PARTS, Row
from evaluation.markdown_table import shorten, table_head, table_row, visible

_RANKS = ("policy", "baseline", "plain")
COLUMNS = (
    *("row", "step", "split", "sample_id", "kind", "reason", "detail", "reward"),
    *("query", "user_profile", "history_summary", "history_context", "rewrite", "baseline_rewrite"),
    *(f"{name}_rank" for name in _RANKS),
    *PARTS,
    *("judge_said", "slices", "anomalies"),
)
_EXTREMES, _EXAMPLES = 10, 3  # rows a table of the Markdown file


def cells_of(row: Row) -> list[Any]:
    """Return the cells of a row, in the order of `COLUMNS`; "" for what is not known."""
    ranks = ["" if name not in row.ranks else row.ranks[name] or "not found" for name in _RANKS]
    context = row.context
    return [
        *(row.number, "" if row.step is None else row.step, row.split, row.sample_id, row.kind, row.reason, row.detail),
        "" if row.reward is None else row.reward,
        *(row.query, context.user_profile, context.history_summary, context.history_context),
        *(row.rewrite, row.baseline),
        *ranks,
        *(row.parts.get(name, "") for name in PARTS),
        *(row.judge, " | ".join(row.slices), " | ".join(row.anomalies)),
    ]


def markdown(rows: Sequence[Row], counts: Counts, broken: Sequence[str], broken_count: int, title: str) -> str:
    """Return the counts of all rows, the highest and lowest rewards of those shown, and examples of what is odd."""
    lines = [f"# {visible(shorten(title))}", "", f"{counts.rows} rows; the tables below are of {len(rows)} of them."]
    if broken_count:
        lines += ["", f"{broken_count} broken lines:", "", *(f"- {visible(shorten(line))}" for line in broken)]
        lines += [f"- … and {broken_count - len(broken)} more"] if broken_count > len(broken) else []
    for heading, counted in (("Outcome", counts.kinds), ("Odd", counts.anomalies), ("Slice", counts.slices)):
        if counted:
            lines += ["", *table_head(heading, "rows", "share")]
            lines += [table_row(name, str(n), f"{100 * n / counts.rows:.1f} %") for name, n in counted.most_common()]
    rewarded = sorted((row for row in rows if row.reward is not None), key=lambda row: row.reward or 0.0)
    if rewarded:
        lines += ["", "## Highest rewards", "", *_table(rewarded[::-1], _EXTREMES)]
        lines += ["", "## Lowest rewards", "", *_table(rewarded, _EXTREMES)]
    for name, _ in counts.anomalies.most_common():
        found = [row for row in rows if name in row.anomalies]
        if found:
            lines += ["", f"## {name}", "", *_table(found, _EXAMPLES)]
    return "\n".join(lines)


def _table(rows: Sequence[Row], most: int) -> list[str]:
    """Return the first rows with different queries or rewrites: siblings often write the same."""
    lines = table_head("row", "step", "reward", "query", "rewrite", "baseline")
    different: dict[tuple[str, str], Row] = {}
    for row in rows:
        different.setdefault((row.query, row.rewrite), row)
    for row in list(different.values())[:most]:
        reward = "" if row.reward is None else f"{row.reward:.3f}"
        step = "" if row.step is None else str(row.step)
        lines.append(table_row(str(row.number), step, reward, *map(shorten, (row.query, row.rewrite, row.baseline))))
    return lines
