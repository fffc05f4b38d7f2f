"""The canary: pairs labelled by people, judged again now and then. Is the judge still the judge it was?

`python -m reward.canary --pairs FILE --tenant TENANT --judge PROFILE [--out CANARY.jsonl]`

A check asks about every pair anew (its step is part of every ledger key), compares the judge's preference with the
people's, and tells how far the judge has moved since the first check in the same file. A run does so every N steps.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reward.judge.agreement import CanaryCheck, JudgedPair
from reward.judge.canary import CanaryPair, check_canary, read_pairs, verdicts_file
from reward.judge.judge import Judge
from reward.ledger.calls import Calls
from reward.ledger.ledger import Ledger
from reward.records.commands import command
from reward.records.files import read_records
from reward.settings.recipe import CanarySettings, LedgerSettings, load_judge, load_tenant


def print_check(check: CanaryCheck, pairs: Sequence[CanaryPair], judged: Sequence[JudgedPair]) -> None:
    """Print the pairs on which judge and people differ, and the metrics."""
    table = Table("pair", "query", "people", "judge", "a", "b", title="where judge and people differ")
    queries = {pair.pair_id: pair.original_query for pair in pairs}
    for pair in judged:
        if pair.judged != pair.preferred:
            scores = ["" if score is None else f"{score:.2f}" for score in (pair.score_a, pair.score_b)]
            table.add_row(pair.pair_id, queries[pair.pair_id], pair.preferred, pair.judged or "failed", *scores)
    console = Console()
    if table.row_count:
        console.print(table)
    metrics = Table("metric", "value", show_header=False)
    for name, value in check.model_dump(exclude={"kappa_low", "kappa_high"}, exclude_none=True).items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        if name == "kappa":
            shown += f"  [{check.kappa_low:.3f}, {check.kappa_high:.3f}]"
        metrics.add_row(name, shown)
    console.print(metrics)


async def _check_by_hand(args: argparse.Namespace) -> CanaryCheck:
    tenant, profile, pairs = load_tenant(args.tenant), load_judge(args.judge), read_pairs(args.pairs)
    if args.mode:
        profile = profile.model_copy(update={"mode": args.mode})
    out: Path = args.out or Path("outputs") / "canary" / tenant.tenant_id / "canary.jsonl"
    settings = CanarySettings(file=args.pairs, drift=args.drift)
    ledger_settings = LedgerSettings(path=out.with_name("ledger.sqlite"), run_id="canary")
    ledger = Ledger(ledger_settings)
    try:
        judge = Judge(profile, tenant, ledger_settings.cny_per_usd, Calls(ledger))
        try:
            steps = [check.step for check in read_records(out, CanaryCheck)] if out.is_file() else []
            step = max([int(time.time()), *(last + 1 for last in steps)])  # never one that the ledger knows
            await check_canary(judge, pairs, step, settings, out)
        finally:
            await judge.aclose()
    finally:
        ledger.close()
    check = list(read_records(out, CanaryCheck))[-1]
    print_check(check, pairs, [pair for pair in read_records(verdicts_file(out), JudgedPair) if pair.step == step])
    print(f"written to {out}")
    return check


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reward.canary",
        description="Ask a judge about pairs labelled by people. Exit code 1: it has drifted, or judged no pair.",
    )
    parser.add_argument("--pairs", required=True, type=Path, metavar="FILE", help="JSONL of labelled pairs")
    parser.add_argument("--tenant", required=True, help="a name in recipes/config/tenant or a YAML file")
    parser.add_argument("--judge", required=True, help="a name in recipes/config/judge or a YAML file")
    parser.add_argument("--mode", choices=["pointwise", "batched", "pairwise"], help="instead of the profile's")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="checks are appended here (outputs/canary/TENANT/canary.jsonl)"
    )
    limit = CanarySettings.model_fields["drift"].default
    parser.add_argument(
        "--drift", type=float, default=limit, help="alarm beyond this fall of kappa (default %(default)s)"
    )
    args = parser.parse_args(argv)
    check = asyncio.run(_check_by_hand(args))
    return 1 if check.alarm or not check.judged else 0


if __name__ == "__main__":
    raise SystemExit(main())
