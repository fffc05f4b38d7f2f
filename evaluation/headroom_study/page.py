"""Show a study: the table on the terminal, and the same with examples as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.headroom_study.study import Measured
from evaluation.markdown_table import shorten, table_head, table_row
from evaluation.systems import ORIGINAL
from reward.records.sample import Sample

_EXAMPLES = 10


def print_results(console: Console, results: Mapping[str, Any], out: Path) -> None:
    """Print a table of systems by channel, the verdict, and what was not measured or not asked."""
    metric = results["metric"]
    channels = {name: part for name, part in results["channels"].items() if part["n"]}
    table = Table("system", *(f"{name} (n={part['n']})" for name, part in channels.items()), title=metric)
    for system in _systems(channels):
        table.add_row(system, *(_cell(part, system, metric, interval=False) for part in channels.values()))
    console.print(table)
    console.print(f"{results['verdict']['channel']}: {results['verdict']['sentences']}", markup=False, highlight=False)
    console.print(results["verdict"]["detail"], highlight=False, markup=False)
    for channel, why in results["not_measured"].items():
        console.print(f"{channel}: not measured: {why}", markup=False, style="yellow")
    calls = results["calls"]
    line = f"{calls['retrieval_requests']} requests, {calls['questions_on_disk']} answers were on disk"
    if calls["not_asked_for_max_calls"]:
        line += f", {calls['not_asked_for_max_calls']} questions were not asked (--max-calls)"
    console.print(f"{line}; wrote {out / 'headroom.json'}, headroom.md and examples.jsonl", markup=False)


def markdown_page(
    results: Mapping[str, Any], samples: Sequence[Sample], measured: Mapping[str, Sequence[Measured]]
) -> str:
    """Return the verdict, the systems by channel and slice, the best-of curves and examples, as Markdown."""
    metric = results["metric"]
    lines = ["# What rewriting can gain", "", results["verdict"]["sentences"], "", results["verdict"]["detail"], ""]
    if unjudged := results["provenance"]["queries"]["without_relevant_passages"]:
        lines += [f"{unjudged} more samples took no part: no relevant passage is known for them.", ""]
    channels = {name: part for name, part in results["channels"].items() if part["n"]}
    lines += [f"## {metric} by channel", "", *table_head("system", *(f"{c} (n={p['n']})" for c, p in channels.items()))]
    lines += [
        table_row(system, *(_cell(part, system, metric) for part in channels.values())) for system in _systems(channels)
    ]
    lines += [""] + [f"{channel}: not measured: {why}" for channel, why in results["not_measured"].items()]
    for channel, part in channels.items():
        lines += ["", f"## {channel}", "", part["verdict"]["sentences"], ""]
        lines += table_head("slice", "n", *part["systems"])
        for name, of_slice in part["slices"].items():
            values = (f"{of_slice['systems'][system][metric]:.3f}" for system in part["systems"])
            lines.append(table_row(name, str(of_slice["n"]), *values))
        for source, best in part["best_of"].items():
            curve = ", ".join(f"{k}: {point[metric]:.3f}" for k, point in best["curve"].items())
            lines += ["", f"Best of k draws of {source}: {curve}."]
    first = results["verdict"]["channel"]
    return "\n".join([*lines, "", *_examples(samples, measured[first])])


def _systems(channels: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(system for part in channels.values() for system in part["systems"]))


def _cell(part: Mapping[str, Any], system: str, metric: str, *, interval: bool = True) -> str:
    found = part["systems"].get(system)
    if found is None:
        return ""
    if not interval:
        return f"{found[metric]:.3f}"
    low, high = found["ci95"][metric]
    return f"{found[metric]:.3f} [{low:.3f}, {high:.3f}]"


def _examples(samples: Sequence[Sample], measured: Sequence[Measured]) -> list[str]:
    """Return a table of the queries that the oracles lift most."""
    gains = []
    for sample, one in zip(samples, measured, strict=True):
        for oracle, text in one.chosen.items():
            before, after = one.fixed[ORIGINAL].rank, one.fixed[oracle].rank
            gain = (1 / after if after else 0.0) - (1 / before if before else 0.0)
            if gain > 0:
                gains.append((gain, sample.original_query, text, before, after))
    if not gains:
        return []
    gains.sort(key=lambda row: -row[0])
    lines = ["## What lifts most", "", *table_head("query", "words chosen with hindsight", "rank")]
    seen: set[str] = set()
    for _, query, text, before, after in gains:
        if query not in seen and len(seen) < _EXAMPLES:
            seen.add(query)
            lines.append(table_row(shorten(query), shorten(text), f"{before or 'none'} → {after}"))
    return lines
