"""Say which rules of a medical run still teach: one that nearly always passes, or never, does not. No call is made.

    python -m reward.saturation --run runs/r1
    python -m reward.saturation --run runs/r1 --last 20 --out reports/saturation.csv

Reads the run's training rollouts (`--last`: of its last steps), scores them by the rules again and reports each rule:
the share that passes, and the share of prompt groups whose siblings all get the same from it. Exit code 0, or 2 for bad
input: a saturated rule is a fact to act on, no failure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reward.records.commands import command
from reward.records.files import BadInput, replacing
from reward.records.spreadsheet import ENCODING, CsvTable
from reward.rollouts.rollout_log import read_rollouts
from reward.rollouts.saturation import RuleSaturation, saturation
from reward.settings.medical_run import load_medical_settings

FIELDS = ("rule", "rollouts", "passed", "mean", "groups_without_difference", "state")
console = Console(markup=False, highlight=False)


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    recorded = args.run if args.settings is None and (args.run / "recipe.yaml").is_file() else None
    settings = load_medical_settings(recorded, args.settings)
    rollouts = [r for r in read_rollouts(args.run) if r.sample.metadata.split == "train"]
    if args.last is not None:
        steps = sorted({r.step for r in rollouts})[-args.last :]
        rollouts = [r for r in rollouts if r.step in set(steps)]
    if not rollouts:
        raise BadInput(f"{args.run}: the log holds no training rollout")
    rules = saturation(rollouts, settings)
    _print(rules, len(rollouts))
    if args.out is not None:
        _write(args.out, rules)
    return 0


def _print(rules: list[RuleSaturation], rollouts: int) -> None:
    table = Table(*FIELDS, title=f"{rollouts} rollouts")
    for rule in rules:
        table.add_row(*_row(rule))
    console.print(table)
    quiet = [rule.rule for rule in rules if rule.state in ("always passes", "never passes")]
    console.print(f"teach nothing here: {', '.join(quiet) or 'none'}", soft_wrap=True)


def _row(rule: RuleSaturation) -> tuple[str, ...]:
    flat = "" if rule.flat_groups is None else f"{rule.flat_groups:.3f}"
    return rule.rule, str(rule.applies), f"{rule.passed:.3f}", f"{rule.mean:.3f}", flat, rule.state


def _write(path: Path, rules: list[RuleSaturation]) -> None:
    with replacing(path) as partial, partial.open("w", encoding=ENCODING, newline="") as file:
        table = CsvTable(file, FIELDS)
        for rule in rules:
            table.write(_row(rule))


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reward.saturation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="output folder of a medical run, with its rollouts/")
    parser.add_argument("--last", type=int, metavar="STEPS", help="only the last so many steps")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the node medical, or a recipe")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table as CSV")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
