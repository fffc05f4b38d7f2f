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


def print_summary(console: Console, metrics: Mapping[str, Any], out: Path) -> None:
    """Print the systems' metrics, the win rates, and what was left out of them."""
    names = [k for k in next(iter(metrics["systems"].values())) if k not in ("n", "ci95")]
    table = Table("system", *names, "n")
    for system, summary in metrics["systems"].items():
        table.add_row(system, *(f"{summary[name]:.3f}" for name in names), str(summary["n"]))
    console.print(table)
    for pair, result in metrics["win_rate"].items():
        rate = (
            "no query decided"
            if result["rate"] is None
            else f"{result['rate']:.1%} [{result['ci95'][0]:.1%}, {result['ci95'][1]:.1%}]"
        )
        console.print(f"{pair}: {rate}  ({result['win']} won, {result['tie']} tied, {result['loss']} lost)")
    for name, share in metrics["provenance"]["cut"].items():
        if share:
            limit = metrics["provenance"]["max_new_tokens"][name]
            console.print(f"[yellow]{name}: {share:.1%} of the rewrites were cut at {limit} new tokens[/]")
    counts = metrics["provenance"]["counts"]
    if counts["abstained"]:
        console.print(f"[yellow]{counts['abstained']} of {counts['samples']} samples left out: a service failed[/]")
    if metrics["provenance"]["judged_by"] == BY_TOP1:
        console.print(f"no relevant passages are known: judged by the {BY_TOP1} ({TOP1})")
    console.print(f"wrote {out / METRICS_FILE} and {REWRITES_FILE}")
