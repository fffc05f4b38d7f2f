"""Put the version before the champion, or the one named, in its place.

    python -m export.rollback --tenant fivedoctors [--to v3] [--reason TEXT]

Records a signed decision; serving follows `champion.json`. The version's files must be as they were promoted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evaluation.markdown_table import visible
from export.promote import REGISTRY, console, roll_back_to
from export.versions.decisions import read_key
from export.versions.registry import open_registry
from reward.records.commands import command
from reward.records.files import BadInput
from reward.settings.recipe import load_tenant


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    tenant = load_tenant(args.tenant)
    with open_registry(args.registry, tenant.tenant_id, read_key(tenant.promotion.key_env)) as registry:
        champion = registry.champion
        target = registry.version(args.to) if args.to else registry.previous
        if champion is None or target is None or target["version"] == champion["version"]:
            what = "there is no champion" if champion is None else f"{champion['version']} is the champion"
            wanted = f"no earlier version {args.to}" if args.to else "no earlier version"
            raise BadInput(f"{registry.folder}: {what}, and {wanted} to go back to")
        outcome = roll_back_to(registry, target)
        if outcome["moves_to"] is None:
            raise BadInput(outcome["note"])
        record = registry.decide(
            {
                "verdict": "ROLLBACK",
                "forced": False,
                "reason": args.reason,
                "champion": champion["version"],
                **outcome,
            }
        )
    console.print(visible(f"ROLLBACK: {record['note']}"), soft_wrap=True)
    return 0


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.rollback", description="Serve an earlier version again.")
    parser.add_argument("--tenant", required=True, help="name of a tenant, or its YAML file")
    parser.add_argument("--registry", type=Path, default=REGISTRY, help=f"folder of the versions (default {REGISTRY})")
    parser.add_argument("--to", metavar="VERSION", help="such as v3 (default: the one before the champion)")
    parser.add_argument("--reason", default="", help="why; kept in the ledger")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
