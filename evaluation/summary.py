"""What `evaluation.compare` says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.comparison import BY_TOP1
from evaluation.metrics import TOP1

METRICS_FILE, REWRITES_FILE = "metrics.json", "rewrites.jsonl"
_TARGETS = {
    "judge_score": ("judge score (of 5)", "{:.2f}"),
    "top1_accuracy": ("top-1 accuracy", "{:.1%}"),
    "latency_ms": ("rewrite latency, p50 (ms)", "{:,.0f}"),
    "usd_per_1000": ("cost per 1000 rewrites ($)", "{:.3g}"),
}


def print_summary(console: Console, metrics: Mapping[str, Any], out: Path) -> None:
    """Print the systems' metrics, the win rates, the targets, and what was left out of them."""
    names = [k for k in next(iter(metrics["systems"].values())) if k not in ("n", "ci95")]
    table = Table("system", *names, "harmed", "n")
    for system, summary in metrics["systems"].items():
        hurt = metrics["harmed"].get(system)
        harmed = f"{hurt['share']:.1%}" if hurt else ""
        table.add_row(system, *(f"{summary[name]:.3f}" for name in names), harmed, str(summary["n"]))
    console.print(table)
    for pair, result in metrics["win_rate"].items():
        console.print(f"{pair}: {_rate(result)}")
    if metrics["judge"]:
        _print_judge(console, metrics["judge"])
    if len(metrics["win_rate"]) > 1:
        pairs = len(metrics["win_rate"])
        console.print(f"{pairs} pairs are compared: sign_p_holm of metrics.json holds the p-values adjusted for that")
    console.print(targets_table(metrics))

    # What is not as it should be comes last, where it is seen.
    for name, share in metrics["provenance"]["cut"].items():
        if share:
            limit = metrics["provenance"]["max_new_tokens"][name]
            console.print(f"[yellow]{name}: {share:.1%} of the rewrites were cut at {limit} new tokens[/]")
    counts = metrics["provenance"]["counts"]
    if counts["abstained"]:
        console.print(f"[yellow]{counts['abstained']} of {counts['samples']} samples left out: a service failed[/]")
    if metrics["provenance"]["judged_by"] == BY_TOP1:
        console.print(f"no relevant passages are known: judged by the {BY_TOP1} ({TOP1})")
    for sentence in metrics["provenance"]["missing"]:
        console.print(f"missing: {sentence}", markup=False, soft_wrap=True)
    console.print(f"wrote {out / METRICS_FILE} and {REWRITES_FILE}")


def targets_table(metrics: Mapping[str, Any]) -> Table:
    """Lay the tenant's targets out: a row a metric, a column a system, target beside measured."""
    systems = list(dict.fromkeys(row["system"] for row in metrics["targets"]))
    table = Table(title="target → measured", title_justify="left")
    table.add_column("metric")
    for system in systems:
        table.add_column(system, justify="right")
    for metric, (label, form) in _TARGETS.items():
        rows = {row["system"]: row for row in metrics["targets"] if row["metric"] == metric}
        cells = []
        for system in systems:
            row = rows[system]
            target, measured = ("–" if row[key] is None else form.format(row[key]) for key in ("target", "measured"))
            mark = {True: " [green]met[/]", False: " [red]missed[/]", None: ""}[row["met"]]
            cells.append(f"{target} → {measured}{mark}")
        table.add_row(label, *cells)
    return table


def _print_judge(console: Console, judge: Mapping[str, Any]) -> None:
    forced = " [yellow](it judged the training too)[/]" if judge["forced"] else ""
    table = Table(title=f"judged by {judge['model']}{forced}", title_justify="left")
    dimensions = ("rewrite_quality", "domain_fit", "intent_kept", "retrievability", "overall")
    for column in ("system", *dimensions, "n"):
        table.add_column(column)
    for system, summary in judge["systems"].items():
        table.add_row(system, *(f"{summary[name]:.2f}" for name in dimensions), str(summary["n"]))
    console.print(table)
    for pair, result in judge["win_rate"].items():
        corrected = ""
        if result["corrected"]:
            low, high = result["corrected"]["ci95"]
            corrected = f"; corrected {result['corrected']['rate']:.1%} [{low:.1%}, {high:.1%}]"
        abstained = f", {result['abstained']} not judged" if result["abstained"] else ""
        console.print(f"{pair} (judge): {_rate(result)}{abstained}{corrected}", markup=False)


def _rate(result: Mapping[str, Any]) -> str:
    rate = "no query decided"
    if result["rate"] is not None:
        rate = f"{result['rate']:.1%} [{result['ci95'][0]:.1%}, {result['ci95'][1]:.1%}]"
    return f"{rate}  ({result['win']} won, {result['tie']} tied, {result['loss']} lost)"
