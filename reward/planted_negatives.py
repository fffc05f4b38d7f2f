"""Score the planted bad answers as a run's settings do. No call is made.

    python -m reward.planted_negatives
    python -m reward.planted_negatives --run runs/r1 --out reports/planted.jsonl

Exit code 0: none earns more than the useless floor; 1: one does; 2: bad input. Under teacher-v1, which adds everything
up, some do: that is what the command is there to show.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reward.medical.planted import PLANTED, load_planted, score_planted
from reward.records.commands import command
from reward.records.files import write_atomically
from reward.settings.medical_run import load_medical_settings

console = Console(markup=False, highlight=False)


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    settings = load_medical_settings(args.run, args.settings)
    scores = score_planted(load_planted(args.negatives), settings)
    table = Table("id", "fault", "reward", "", title=f"{settings.formula}: {len(scores)} planted answers")
    for score in scores:
        table.add_row(score.id, score.fault.value, f"{score.reward:+.2f}", "PASSES" if score.passes else "")
    console.print(table)
    passing = [score.id for score in scores if score.passes]
    unseen = [score.id for score in scores if not score.seen]
    console.print(
        f"passing: {len(passing)} of {len(scores)}; fault not seen by the rules: {', '.join(unseen) or 'none'}"
    )
    if args.out is not None:
        write_atomically(args.out, (score.model_dump_json() for score in scores))
    return 1 if passing else 0


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m reward.planted_negatives", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, help="output folder of a run, whose recorded settings count")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the node medical, or a recipe")
    parser.add_argument("--negatives", type=Path, default=PLANTED, metavar="FILE", help="JSONL of your own answers")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the scores, JSON lines")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
