"""Say what a test of the drop-in has shown: A/B by users, interleaving by clicks.

    python -m export.analyse_experiment --log outputs/serving --tenant fivedoctors --experiment 8b-vs-32b
    python -m export.analyse_experiment --log outputs/serving --tenant fivedoctors --experiment draft   # interleaving
    python -m export.analyse_experiment --plan --base-rate 0.05 --lift 0.1 --share 0.5                  # before a test

Events come from `POST /api/outcome` and from `--events` files. A user counts once. The verdict comes from looks
that are valid after every day: one may look daily and stop when it decides.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.experiments.analysis import analyse_arms, analyse_interleaving
from export.experiments.log_reading import TestLog, read_test
from export.experiments.rates import users_needed
from reward.records.commands import command
from reward.records.files import BadInput, write_json

LIFTS = (1e-4, 100.0)  # relative rises that can be planned for


@dataclass(frozen=True)
class Options:
    """The command line; see `--help`."""

    log: Path
    tenant: str | None
    experiment: str | None
    event: str
    events: list[Path]
    lift: float
    plan: bool
    base_rate: float | None
    share: float
    out: Path | None


@command
def main(argv: list[str] | None = None) -> int:
    """Print the analysis: exit code 0; 2: bad input."""
    options = Options(**vars(_parser().parse_args(argv)))
    console = Console(width=120, markup=False, highlight=False)
    if not LIFTS[0] <= options.lift <= LIFTS[1]:
        raise BadInput(f"--lift {options.lift:g}: expected a relative rise of {LIFTS[0]:g} to {LIFTS[1]:g}")
    if options.plan:
        console.print(_plan_line(options))
        return 0
    if not options.tenant or not options.experiment:
        raise BadInput("give --tenant and --experiment, or --plan")
    test = read_test(options.log, options.tenant, options.experiment, options.events)
    found = analyse(test, options)
    _print(found, console)
    if options.out is not None:
        write_json(options.out, found)
        console.print(f"{options.out}: written")
    return 0


def analyse(test: TestLog, options: Options) -> dict[str, Any]:
    """Return what the test says, and what was left out."""
    found: dict[str, Any] = {"tenant_id": options.tenant, "experiment": options.experiment}
    if test.split is not None:
        found["ab"] = analyse_arms(test, test.split, options.event, options.lift)
    if test.impressions:
        found["interleaving"] = analyse_interleaving(test)
    found["shadow"] = {arm: dict(outcomes) for arm, outcomes in test.shadow.items()}
    found["left_out"] = dict(test.left_out)
    return found


def _plan_line(options: Options) -> str:
    if options.base_rate is None:
        raise BadInput("--plan needs --base-rate: the rate today")
    try:
        control, treatment = users_needed(options.base_rate, options.base_rate * options.lift, options.share)
    except ValueError as problem:
        raise BadInput(f"--base-rate, --lift, --share: {problem}") from None
    return (
        f"{control + treatment:,} users ({control:,} control, {treatment:,} treatment) show a rise from "
        f"{options.base_rate:.2%} by {options.lift:.0%} in one look at the end (80 % power, 5 % two-sided); "
        f"with a look a day, plan for twice as many"
    )


def _print(found: dict[str, Any], console: Console) -> None:
    if "ab" in found:
        _print_arms(found["ab"], console)
    if "interleaving" in found:
        one = found["interleaving"]
        console.print(
            f"interleaving: {one['impressions']} lists of {one['users']} users, {one['clicked']} clicked; "
            f"{one['a']} wins {one['wins_a']}, {one['b']} wins {one['wins_b']}, {one['ties']} ties; {one['b']}'s "
            f"share of wins {_percent(one['b_share_of_wins'])} {_interval(one['ci95'])}, "
            f"sign test p = {one['sign_test_p']:.2g}"
        )
        console.print(one["verdict"], style="bold")
    for arm, outcomes in found["shadow"].items():
        console.print(f"shadow {arm}: {', '.join(f'{count} {what}' for what, count in sorted(outcomes.items()))}")
    for why, count in found["left_out"].items():
        console.print(f"left out: {count} {why}")


def _print_arms(ab: dict[str, Any], console: Console) -> None:
    table = Table("arm", "users", ab["event"], "rate [95 %]", "original query", "ms p50 / p95")
    for name, arm in ab["arms"].items():
        rate = f"{_percent(arm['rate'])} {_interval(arm['ci95'])}"
        times = "–" if arm["ms_p95"] is None else f"{arm['ms_p50']:.0f} / {arm['ms_p95']:.0f}"
        table.add_row(name, str(arm["n"]), str(arm["successes"]), rate, _percent(arm["original_share"]), times)
    console.print(table)
    difference, plan, looks, ratio = ab["difference"], ab["plan"], ab["sequential"], ab["sample_ratio"]
    treatment, control = ab["treatment"], ab["control"]
    console.print(
        f"{treatment} − {control}: {_percent(difference['value'])} {_interval(difference['ci95'])}, one look at the end"
    )
    if looks["rate_ratio"] is not None:
        high = "∞" if looks["ci95"][1] is None else f"{looks['ci95'][1]:.3f}"
        console.print(
            f"{treatment} / {control}: {looks['rate_ratio']:.3f} [{looks['ci95'][0]:.3f}, {high}] at every look"
        )
    console.print(f"sample ratio: p = {ratio['p']:.2g}, {'MISMATCH' if ratio['mismatch'] else 'as planned'}")
    if plan["users_needed"] is None:
        console.print(f"plan: not known: the rate of {control} is {_percent(ab['arms'][control]['rate'])}")
    else:
        console.print(
            f"plan: a lift of {plan['lift']:.0%} needs {plan['users_needed']:,} users in one look; "
            f"{plan['users']:,} users show {_percent(plan['smallest_lift'])} or more"
        )
    if ab["other_events"]:
        told = ", ".join(f"{name} ({users} users)" for name, users in ab["other_events"].items())
        console.print(f"not counted here: {told}")
    console.print(ab["verdict"], style="bold")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.2%}, {bounds[1]:.2%}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.analyse_experiment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, default=Path("outputs/serving"), help="folder of the outcome log")
    parser.add_argument("--tenant", help="tenant id")
    parser.add_argument("--experiment", help="name of the test in the drop-in's settings")
    parser.add_argument("--event", default="conversion", help="that counts in an A/B test (default: %(default)s)")
    parser.add_argument(
        "--events",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="CSV or JSONL of event and request_id, user_id or session_id",
    )
    parser.add_argument("--lift", type=float, default=0.1, help="relative rise to be found (default: %(default)s)")
    parser.add_argument("--plan", action="store_true", help="print how many users a test needs, and nothing else")
    parser.add_argument("--base-rate", type=float, help="of --plan: the rate today")
    parser.add_argument("--share", type=float, default=0.5, help="of --plan: the treatment's (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of everything that is printed")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
