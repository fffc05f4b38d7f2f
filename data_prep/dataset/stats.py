"""What a build kept and what it looks like: the retention funnel, the metrics of each split, the data card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from rich.table import Table

from data_prep.dataset.selection import Selection, Stage
from data_prep.questions.leakage import Leakage
from data_prep.questions.split import Split
from reward.records.files import write_atomically

_BINS = 10  # of the score distribution
_EXAMPLES = 8
_METRICS = {
    "samples": "count(*)",
    "mean_query_length": "round(avg(length(original_query)), 2)",
    "mean_rewrite_length": "round(avg(length(rewritten_query)) FILTER (rewritten_query <> ''), 2)",
    "without_rewrite": "count(*) FILTER (rewritten_query = '')",
    "mean_top1_score": "round(avg(top1_score), 4)",
    "with_profile": "count(*) FILTER (user_profile <> '')",
    "share_with_profile": "round(avg((user_profile <> '')::INT), 4)",
    "with_history": "count(*) FILTER (history_summary <> '' OR history_context <> '')",
    "share_with_history": "round(avg((history_summary <> '' OR history_context <> '')::INT), 4)",
}


def describe(
    selection: Selection,
    names: Sequence[Split],
    augmented: int,
    masked: Mapping[str, int],
    leakage: Leakage | None,
    seed: int,
) -> dict[str, Any]:
    """Compute metrics of the kept rows. Lengths are in characters, shares in [0, 1]. Augmented copies of training
    samples are counted separately and in no other metric. `histogram` counts top1 scores below .1, .2, … 1 (and
    outside)."""
    return {
        "rows_in": selection.rows_in,
        "rows_kept": selection.kept,
        "rows_quarantined": selection.rows_in - selection.kept,
        "retention": selection.kept / selection.rows_in if selection.rows_in else 0.0,
        "funnel": [asdict(stage) for stage in selection.funnel],
        "left_out": dict(
            selection.ask("SELECT step, count(*) AS n FROM dropped GROUP BY step ORDER BY n DESC, step")  # type: ignore[arg-type]
        ),
        "refused": dict(
            selection.ask(
                """SELECT split_part(reason, ':', 1) AS field, count(*) AS n FROM dropped WHERE step = 'readable'
                GROUP BY field ORDER BY n DESC, field"""
            )  # type: ignore[arg-type]
        ),
        "passed_over": remarks_of(selection),
        "masked": dict(sorted(masked.items())),
        "augmented": augmented,
        "splits": _splits(selection, names),
        "histogram": _histogram(selection),
        "months": dict(
            selection.ask(
                """SELECT left(timestamp, 7) AS month, count(*) FROM rows JOIN kept USING (id) WHERE timestamp <> ''
                GROUP BY month ORDER BY month"""
            )  # type: ignore[arg-type]
        ),
        "sources": dict(
            selection.ask("SELECT source, count(*) FROM rows JOIN kept USING (id) GROUP BY source ORDER BY source")  # type: ignore[arg-type]
        ),
        "examples": _examples(selection, seed),
        "leakage": asdict(leakage) if leakage else None,
    }


def remarks_of(selection: Selection) -> list[dict[str, Any]]:
    """Count what was passed over in usable rows, by column and kind, with the first row and some of the details."""
    found = selection.ask(
        """SELECT regexp_replace(remark, ' \\([^()]*\\)$', '') AS what, count(*) AS n,
            list(DISTINCT regexp_extract(remark, '\\(([^()]*)\\)$', 1))[:5] AS details,
            arg_min(row, id) AS row, arg_min(file, id) AS file
        FROM (SELECT unnest(remarks) AS remark, row, file, id FROM rows WHERE refused = '')
        GROUP BY what ORDER BY n DESC, what"""
    )
    names = ("what", "count", "details", "row", "file")
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in found]
    return [row | {"details": sorted(filter(None, row["details"]))} for row in rows]


def _splits(selection: Selection, names: Sequence[Split]) -> dict[str, dict[str, Any]]:
    metrics = ", ".join(_METRICS.values())
    found = selection.ask(
        f"""SELECT coalesce(split, 'all'), {metrics} FROM rows JOIN kept USING (id) JOIN splits USING (id)
        GROUP BY GROUPING SETS (split, ())"""
    )
    by_split = {row[0]: dict(zip(_METRICS, row[1:], strict=True)) for row in found}
    empty = dict.fromkeys(_METRICS) | dict.fromkeys(("samples", "without_rewrite", "with_profile", "with_history"), 0)
    return {name: by_split.get(name, empty) for name in (*names, "all")}


def _histogram(selection: Selection) -> list[int]:
    found = selection.ask(
        f"""SELECT least(greatest(floor(top1_score * {_BINS}), 0), {_BINS - 1})::INT AS bin, count(*)
        FROM rows JOIN kept USING (id) WHERE top1_score IS NOT NULL GROUP BY bin"""
    )
    counts: dict[Any, Any] = {row[0]: row[1] for row in found}
    return [counts.get(place, 0) for place in range(_BINS)] if counts else []


def _examples(selection: Selection, seed: int) -> list[dict[str, Any]]:
    """Choose examples by a hash: the same rows give the same examples in any order."""
    names = ("original_query", "user_profile", "history_summary", "rewritten_query", "top1_score")
    found = selection.ask(
        f"""SELECT {", ".join(names)} FROM rows JOIN kept USING (id) WHERE rewritten_query <> ''
        ORDER BY md5(concat('{seed:d}', original_query, context)), id LIMIT {_EXAMPLES}"""
    )
    return [dict(zip(names, row, strict=True)) for row in found]


def funnel_table(rows_in: int, funnel: Sequence[Stage]) -> Table:
    """Draw for the terminal the rows in and out of each step, and what remains of all."""
    table = Table(title="retention", title_justify="left")
    table.add_column("step")
    for heading in ("rows in", "rows out", "of all"):
        table.add_column(heading, justify="right")
    for stage in funnel:
        share = stage.rows_out / rows_in if rows_in else 0.0
        table.add_row(stage.name, f"{stage.rows_in:,}", f"{stage.rows_out:,}", f"{share:.1%}")
    return table


def write_stats_page(path: Path, title: str, stats: dict[str, Any]) -> None:
    """Write one self-contained HTML file."""
    _write(path, "stats.html.j2", title=title, stats=stats)


def write_data_card(path: Path, **values: Any) -> None:
    """Write `DATA_CARD.md`: what the set is, what it was made of and how, what was left out, what to know before
    use."""
    _write(path, "data_card.md.j2", **values)


def _write(path: Path, template: str, **values: Any) -> None:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_atomically(path, environment.get_template(template).render(**values).splitlines())
