"""Read a run's rollouts and raise the alarms for reward hacking, each with examples. No call is made.

    python -m reward.audit --run outputs/rl/fivedoctors
    python -m reward.audit --run outputs/rl/fivedoctors --follow

Sets the last steps against the first ones (`--last`, 20 at either end, fewer in a short run). Exit code 0: no alarm;
1: an alarm; 2: bad input. `--follow` reads again as the run grows, until it has finished or stopped, or Ctrl-C.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from reward.records.commands import command
from reward.records.files import BadInput, first_problem, read_last_line
from reward.records.outcome import Rollout
from reward.rollouts.alarm import Alarm, AlarmLimits
from reward.rollouts.alarms import check_run, judge_drift
from reward.rollouts.rollout_log import FOLDER, read_rollouts, rollout_files
from reward.rollouts.windows import Window
from reward.settings.recorded_run import load_run_settings

console = Console(markup=False, highlight=False)


@dataclass(frozen=True)
class Audit:
    """`first` and `last` are the steps compared, None while there is too little to compare."""

    alarms: list[Alarm]
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None
    rollouts: int = 0

    @property
    def raised(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if alarm.raised]


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    limits = load_limits(args.thresholds, args.last)
    if args.follow:
        audit = follow_run(args.run, limits, args.settings, every=args.every)
    else:
        audit = audit_run(args.run, limits, args.settings)
        print_audit(audit, limits)
    return 1 if audit.raised else 0


def audit_run(run: Path, limits: AlarmLimits, settings: Path | None = None) -> Audit:
    """Every check on the first and last steps of the run's training rollouts, and on its last canary check.

    Memory: the rollouts of at most twice `limits.window` steps.

    Raises:
        BadInput: there is no log, or it or the settings cannot be read.
    """
    steps: dict[int, list[Rollout]] = {}
    dropped = 0  # the middle of the run has been read and let go up to here
    for rollout in read_rollouts(run):
        if rollout.sample.metadata.split != "train" or rollout.step <= dropped:
            continue
        steps.setdefault(rollout.step, []).append(rollout)
        if len(steps) > 2 * limits.window:
            dropped = sorted(steps)[limits.window]
            del steps[dropped]
    order = sorted(steps)
    size = min(limits.window, len(order) // 2)
    drift = judge_drift(read_last_line(run / "canary.jsonl"), limits)
    alarms = [drift] if drift else []
    if size == 0:
        return Audit(alarms)
    first, last = order[:size], order[-size:]
    made_with = load_run_settings(run, settings)
    lexicon = made_with.lexicon_of(steps[first[0]][0].sample)
    before, now = (Window([r for step in part for r in steps[step]], lexicon) for part in (first, last))
    checked = check_run(before, now, limits, made_with.task)
    return Audit(
        [*checked, *alarms], (first[0], first[-1]), (last[0], last[-1]), len(before.rollouts) + len(now.rollouts)
    )


def follow_run(run: Path, limits: AlarmLimits, settings: Path | None = None, *, every: float = 10.0) -> Audit:
    """`audit_run` whenever the log has grown, until the run has ended; prints when the alarms have changed.

    Args:
        every: seconds between two looks at the log; more where reading it takes long.

    Returns the last audit; its alarms are those of the run's end, not of its worst moment.

    Raises:
        BadInput: as `audit_run`, or there is no such folder.
    """
    if not run.is_dir():
        raise BadInput(f"{run}: no such folder")
    audit, shown, seen, took = Audit([]), set[str](), -1, 0.0
    try:
        while True:
            ended = has_ended(run)  # asked before reading: what was written until then is read
            size = sum(path.stat().st_size for path in rollout_files(run / FOLDER))
            if ended or size not in (0, seen):
                started = time.monotonic()
                audit, seen = audit_run(run, limits, settings), size
                took = time.monotonic() - started
                names = {alarm.name for alarm in audit.raised}
                if names != shown or ended:
                    print_audit(audit, limits)
                    shown = names
            if ended:
                return audit
            time.sleep(max(every, 3 * took))
    except KeyboardInterrupt:
        return audit


def has_ended(run: Path) -> bool:
    """Whether the run has finished (its record lies beside the final model) or stopped itself."""
    record, final = run / "run.json", run / "final" / "run.json"
    finished = record.is_file() and final.is_file() and final.read_bytes() == record.read_bytes()
    return finished or (run / "stopped.json").is_file()


def load_limits(file: Path | None, window: int | None) -> AlarmLimits:
    """The default limits, those of a YAML file where it names them, and the window of the command line.

    Raises:
        BadInput: the file cannot be read, or a key is unknown or out of range.
    """
    values: object = {}
    if file is not None:
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise BadInput(f"{file}: no such file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(values, dict):
            raise BadInput(f"{file}: expected `name: limit` lines")
    assert isinstance(values, dict)
    try:
        return AlarmLimits.model_validate({**values, **({} if window is None else {"window": window})})
    except ValidationError as error:
        raise BadInput(f"{file or '--last'}: {first_problem(error)}") from None


def print_audit(audit: Audit, limits: AlarmLimits) -> None:
    """A table of all checks, then the alarms with advice and examples."""
    if audit.first is None or audit.last is None:
        console.print("too little to compare: fewer than two training steps are logged")
    else:
        (first, to), (last, end) = audit.first, audit.last
        console.print(f"steps {first}-{to} against {last}-{end}, {audit.rollouts} rollouts")
        if not any(alarm.name != "judge_drift" for alarm in audit.alarms):
            console.print(f"too little to compare: fewer than {limits.min_rollouts} rollouts at either end")
    if audit.alarms:
        table = Table("check", "first", "last", "limit", "")
        for alarm in audit.alarms:
            before = "" if alarm.first is None else f"{alarm.first:.3f}"
            state = "ALARM" if alarm.raised else "ok"
            table.add_row(alarm.name, before, f"{alarm.value:.3f}", f"{alarm.limit:.3f}", state)
        console.print(table)
    for alarm in audit.raised:
        console.print(f"ALARM {alarm.name} {alarm.value:.3f} (limit {alarm.limit:.3f}): {alarm.advice}", soft_wrap=True)
        for example in alarm.examples:
            note = f"  ({example.note})" if example.note else ""
            console.print(f"  step {example.step}: {example.query!r} -> {example.rewrite!r}{note}", soft_wrap=True)
    names = ", ".join(alarm.name for alarm in audit.raised)
    console.print(f"{len(audit.raised)} alarm(s): {names}" if names else "no alarm")


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m reward.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="output folder of the run, with its rollouts/")
    parser.add_argument("--follow", action="store_true", help="read again as the run grows, until it ends")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="between two looks (default 10)")
    parser.add_argument("--last", type=int, metavar="N", help="steps at either end to compare (default 20)")
    limits = ", ".join(AlarmLimits.model_fields)
    parser.add_argument("--thresholds", type=Path, metavar="FILE", help=f"YAML of `name: limit`, names: {limits}")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the run's tenant, if not recorded")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
