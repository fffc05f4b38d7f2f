"""Verify a tenant's ledger of decisions and list it.

    python -m export.decisions --tenant fivedoctors

Checks every line's signature and its link to the line before, and that the champion's file follows from them; names the
first broken line. Exit code 0: whole; 1: broken; 2: bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.table import Table

from evaluation.markdown_table import visible
from export.promote import REGISTRY, console
from export.versions.decisions import DECISIONS_FILE, BrokenLedger, read_key
from export.versions.registry import CHAMPION_FILE, Registry, open_registry
from reward.records.commands import command
from reward.records.files import BadInput
from reward.settings.recipe import load_tenant


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    tenant = load_tenant(args.tenant)
    folder = args.registry / tenant.tenant_id
    if not any((folder / name).exists() for name in (DECISIONS_FILE, CHAMPION_FILE)):
        raise BadInput(f"{folder}: nothing has been decided yet")
    try:
        with open_registry(args.registry, tenant.tenant_id, read_key(tenant.promotion.key_env)) as registry:
            print_decisions(registry)
    except BrokenLedger as broken:
        print(f"BROKEN: {broken}", file=sys.stderr)
        return 1
    return 0


def print_decisions(registry: Registry) -> None:
    """Print a line a decision, then the champion."""
    table = Table("n", "when", "verdict", "champion", "", "reason", "by")
    for record in registry.records:
        moved = record["moves_to"]
        table.add_row(
            str(record["n"]),
            record["decided_at"][:19],
            record["verdict"] + (" (forced)" if record["forced"] else ""),
            f"{record['champion'] or '–'} → {moved['version']}" if moved else record["champion"] or "–",
            *(visible(record[name]) for name in ("note", "reason", "by")),
        )
    console.print(table)
    champion = registry.champion
    console.print(f"{len(registry.records)} decisions, all signed and in order", soft_wrap=True)
    console.print(
        visible(f"champion: {champion['version']} ({champion['model']})") if champion else "no champion", soft_wrap=True
    )


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m export.decisions", description="Verify a tenant's ledger of decisions and list it."
    )
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--registry", type=Path, default=REGISTRY, help=f"folder of the versions (default {REGISTRY})")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
