"""What a build kept and what it looks like: the retention funnel and the figures of each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader
from rich.table import Table

from data_prep.clean import Stage
from data_prep.read_sources import Quarantined, Source
from reward.records import Sample, write_atomically


def read_stage(source: Source) -> Stage:
    return Stage("readable", source.rows_in, len(source.rows))


def describe(
    splits: Mapping[str, Sequence[Sample]], funnel: Sequence[Stage], quarantined: Sequence[Quarantined]
) -> dict[str, Any]:
    """Lengths are mean characters; shares lie in [0, 1]. Augmented samples count in their split and are told apart."""
    everything = [sample for samples in splits.values() for sample in samples]
    return {
        "funnel": [asdict(stage) for stage in funnel],
        "retention": funnel[-1].rows_out / funnel[0].rows_in,
        "quarantined": dict(Counter(q.reason for q in quarantined).most_common()),
        "splits": {name: _figures(samples) for name, samples in {**splits, "all": everything}.items()},
    }


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    def mean(value: Callable[[Sample], float]) -> float | None:
        return round(fmean(map(value, samples)), 4) if samples else None

    return {
        "samples": len(samples),
        "augmented": sum(s.metadata.augmented for s in samples),
        "mean_query_length": mean(lambda s: len(s.original_query)),
        "mean_rewrite_length": mean(lambda s: len(s.rewritten_query)),
        "mean_top1_score": mean(lambda s: s.metadata.top1_score or 0.0),
        "share_with_profile": mean(lambda s: bool(s.context.user_profile)),
        "share_with_history": mean(lambda s: bool(s.context.history_summary or s.context.history_context)),
    }


def funnel_table(funnel: Sequence[Stage]) -> Table:
    """For the terminal: rows in and out of each step, and what remains of all."""
    table = Table(title="retention", title_justify="left")
    table.add_column("step")
    for heading in ("rows in", "rows out", "of all"):
        table.add_column(heading, justify="right")
    for stage in funnel:
        share = stage.rows_out / funnel[0].rows_in
        table.add_row(stage.name, str(stage.rows_in), str(stage.rows_out), f"{share:.1%}")
    return table


def write_stats_page(path: Path, title: str, stats: dict[str, Any]) -> None:
    """One self-contained HTML file."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("stats.html.j2").render(title=title, stats=stats)
    write_atomically(path, page.splitlines())
