"""Score a run's rollouts again under other weights, another formula or version, and show what changes. No call is made.

    python -m reward.replay --run outputs/rl/fivedoctors --formula v1
    python -m reward.replay --run outputs/rl/fivedoctors --set weight_judge=0.6 --set length.penalty=0.01 --out new.csv
    python -m reward.replay --run runs/r1 --verdicts data/rl/teacher_judgements.jsonl

It starts from the reward settings that the run recorded (or `--settings`); without any change it must give back every
logged reward. What the log does not hold for the formula asked for is counted and reported, never invented.
`--verdicts` gives medical rollouts that the rules alone have scored the verdicts that the teacher gave later
(`reward.ask_teacher`).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reward.records.commands import command
from reward.records.files import BadInput, replacing
from reward.records.outcome import Abstained, Gated
from reward.records.spreadsheet import ENCODING, CsvTable
from reward.rollouts.late_verdicts import read_verdicts, with_verdicts
from reward.rollouts.rescoring import Comparison, Missing, Rescored, rescore_run
from reward.rollouts.rollout_log import read_rollouts
from reward.settings.recorded_run import load_run_settings
from reward.task import make_task

FIELDS = (
    "step", "sample_id", "query", "rewrite", "baseline_rewrite",
    "before_kind", "before", "after_kind", "after", "after_reason",
)  # fmt: skip
console = Console(markup=False, highlight=False)  # rewrites may hold what looks like markup


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    replay_run(args)
    return 0


def replay_run(args: argparse.Namespace) -> Comparison:
    """Rescore, compare, print, and write `--out`.

    Raises:
        BadInput: the run holds no rollouts, or an argument or a file cannot be used.
    """
    formula = [f"formula={args.formula}"] if args.formula else []
    settings = load_run_settings(args.run, args.settings, [*formula, *args.set])
    if settings.reward.weight_retrieval + settings.reward.weight_judge == 0:
        raise BadInput("--set: weight_retrieval and weight_judge are both 0")
    task = make_task(
        settings.task,
        settings.reward,
        settings.lexicon_of,
        has_judge=settings.has_judge,
        expansion=settings.expansion,
        medical=settings.medical,
    )
    rollouts, given = read_rollouts(args.run), Counter[str]()
    if args.verdicts:
        if settings.task != "medical":
            raise BadInput(f"--verdicts: {args.run} is no run of the medical task")
        rollouts = with_verdicts(rollouts, read_verdicts(args.verdicts), given)
    rescored = rescore_run(rollouts, task)
    comparison = Comparison()
    with _writer(args.out) as write, console.status("scoring again") as status:
        for row in rescored:
            comparison.add(row)
            write(row)
            if comparison.rollouts % 5000 == 0:
                status.update(f"scoring again: {comparison.rollouts} rollouts")
    if comparison.rollouts == 0:
        raise BadInput(f"{args.run}: the log holds no rollout yet")
    changes = ", ".join([*formula, *args.set]) or "no change"
    console.print(f"settings: {settings.source}; {changes}", soft_wrap=True)
    _print(comparison)
    if args.verdicts:
        console.print(
            f"without the teacher in the run: {given['missing']}; with a verdict in {args.verdicts}: {given['found']}",
            soft_wrap=True,
        )
    if args.out:
        console.print(f"rollouts written to {args.out}", soft_wrap=True)
    return comparison


@contextmanager
def _writer(out: Path | None) -> Iterator[Callable[[Rescored], None]]:
    """Writes a row a rollout to a `.jsonl` or `.csv` file, which takes its name once it is complete."""
    if out is None:
        yield lambda row: None
        return
    if out.suffix not in (".jsonl", ".csv"):
        raise BadInput(f"--out {out}: expected a name that ends in .jsonl or .csv")
    encoding = ENCODING if out.suffix == ".csv" else "utf-8"
    with replacing(out) as partial, partial.open("w", encoding=encoding, newline="") as file:
        if out.suffix == ".csv":
            table = CsvTable(file, FIELDS)
            yield lambda row: table.write(_row(row).values())
        else:
            yield lambda row: print(json.dumps(_row(row), ensure_ascii=False), file=file)


def _row(rescored: Rescored) -> dict[str, Any]:
    rollout, outcome = rescored.rollout, rescored.outcome
    if isinstance(outcome, Gated | Abstained):
        reason = outcome.reason.value
    else:
        reason = outcome.reason if isinstance(outcome, Missing) else ""
    values = (
        rollout.step,
        rollout.sample.sample_id,
        rollout.sample.original_query,
        rollout.completion.strip(),
        rollout.baseline_rewrite,
        rollout.outcome.kind,
        rescored.before,
        "missing" if isinstance(outcome, Missing) else outcome.kind,
        rescored.after,
        reason,
    )
    return dict(zip(FIELDS, values, strict=True))


def _print(comparison: Comparison) -> None:
    metrics = comparison.metrics()
    table = Table("", "before", "after", title=f"{comparison.rollouts} rollouts", title_justify="left")
    total = comparison.kinds_before.total()
    if "mean_before" in metrics:
        table.add_row("mean reward", f"{metrics['mean_before']:+.4f}", f"{metrics['mean_after']:+.4f}")
    for kind in ("scored", "gated", "abstained"):
        if total:
            before, after = comparison.kinds_before[kind] / total, comparison.kinds_after[kind] / total
            table.add_row(kind, f"{before:.2%}", f"{after:.2%}")
    console.print(table)
    for reason, count in comparison.missing.most_common():
        console.print(f"not scored again: {count} ({reason})", soft_wrap=True)
    if total:
        console.print(f"outcome changed: {comparison.changed_kind / total:.2%}")
    if "newly_scored" in metrics:
        mean = metrics["newly_scored_mean"]
        console.print(f"had abstained, would have trained: {metrics['newly_scored']:.0f}, mean reward {mean:+.4f}")
    if "mean_before" in metrics:
        console.print(f"identical rewards: {metrics['identical']:.0f} of {metrics['compared']:.0f}")
        console.print(f"flipped sign: {metrics['flipped_up']:.0f} up, {metrics['flipped_down']:.0f} down")
    if "spearman" in metrics:
        console.print(f"rank correlation (Spearman): {metrics['spearman']:+.3f} over all rollouts")
    if "spearman_in_groups" in metrics:
        mean = metrics["spearman_in_groups"]
        console.print(f"  within prompt groups: {mean:+.3f}, mean over {metrics['groups']:.0f} groups that differ")
    if "advantage_shift" in metrics:
        changed, of = metrics["best_changed"], metrics["best_of"]
        shift = metrics["advantage_shift"]
        console.print(f"best of group changed: {changed:.0f} of {of:.0f}; mean shift of an advantage: {shift:.4f}")
    if movers := comparison.movers():
        shown = Table("step", "query", "rewrite", "before", "after", title="top movers", title_justify="left")
        for mover in movers:
            texts = (mover.query, mover.rewrite.strip())
            shown.add_row(str(mover.step), *texts, f"{mover.before:+.3f}", f"{mover.after:+.3f}")
        console.print(shown)


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m reward.replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="output folder of the run, with its rollouts/")
    parser.add_argument(
        "--formula", choices=("v1", "v2", "v3", "teacher-v1", "teacher-v2"), help="the formula to score with"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a reward setting to change, e.g. length.target=30, gates=[empty], adaptive_shaping=true; repeatable",
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the nodes reward and tenant")
    parser.add_argument("--verdicts", type=Path, metavar="FILE", help="teacher_judgements.jsonl, for a medical run")
    parser.add_argument("--out", type=Path, help="also write a row a rollout to this .jsonl or .csv file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
