"""Are the tests of the drop-in right, and how many users do they need?

    python -m benchmarks.rewriter_experiments [--tests 1000] [--seed 0]

False positives: A/A tests with 200 looks each, at several rates and shares; a side may be wrong in 2.5 % of them.
Power: tests with a lift of 10 %, looked at 200 times, with as many users as one look at the end needs for 80 %, and
twice and thrice as many. Interleaving: simulated users (`rewriter_service_runs.simulated_users`) of a rewriter whose
right passage is first for 78 % of the queries, and of one with 85 %: how many users an A/B test of clicks needs for
80 % power, and how many interleaved lists; both are checked by simulation. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest, norm

from benchmarks.progress import progress_bar
from benchmarks.rewriter_service_runs.simulated_users import Rewriter, success, vote
from export.experiments.rates import Rate, difference_interval, users_needed
from export.experiments.sequential import is_above, prior_strength

LOOKS, LIFT, POWER = 200, 0.1, 0.8
RATES, SHARES = (0.02, 0.05, 0.3, 0.9), (0.5, 0.1)
BASELINE, POLICY = Rewriter(top1=0.78, found=0.92), Rewriter(top1=0.85, found=0.95)
USERS_SEEN = 100_000  # of which the rates are known well enough to plan


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rewriter_experiments", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tests", type=int, default=1000, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default %(default)s)")
    args = parser.parse_args(argv)
    console = Console(width=120)
    rng = np.random.default_rng(args.seed)
    with progress_bar() as bar:
        task = bar.add_task("A/A tests", total=len(RATES) * len(SHARES) + 6)
        equal: dict[tuple[float, float], tuple[float, float]] = {}
        for rate in RATES:
            for share in SHARES:
                users = 4 * sum(users_needed(0.05, 0.05 * LIFT))
                equal[rate, share] = _decided(rng, args.tests, rate, rate, share, users)
                bar.advance(task)
        bar.update(task, description="power")
        power: dict[tuple[float, int], float] = {}
        for rate in (0.05, 0.3):
            for times in (1, 2, 3):
                users = times * sum(users_needed(rate, rate * LIFT))
                power[rate, times] = _decided(rng, args.tests, rate, rate * (1 + LIFT), 0.5, users)[0]
                bar.advance(task)
    sensitivity = measure_interleaving(random.Random(args.seed), args.tests)
    _print(console, equal, power, sensitivity)
    metrics = {
        "tests": args.tests,
        "false_positives_a_side_most": max(max(sides) for sides in equal.values()),
        **{f"power_rate_{rate}_users_x{times}": value for (rate, times), value in power.items()},
        **sensitivity,
    }
    print(json.dumps(metrics))
    return 0


def _decided(
    rng: np.random.Generator, tests: int, control: float, treatment: float, share: float, users: int
) -> tuple[float, float]:
    """Return in which share of the tests the treatment wins at some look, and the control."""
    size = users // LOOKS
    ours, theirs = _events(rng, (tests, LOOKS), size, control, treatment, share)
    above = is_above(ours, theirs, share, prior_strength(share, LIFT)).any(axis=1)
    below = is_above(theirs, ours, 1 - share, prior_strength(share, LIFT)).any(axis=1)
    return float(above.mean()), float(below.mean())


def _events(
    rng: np.random.Generator, shape: tuple[int, int], size: int, control: float, treatment: float, share: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    treated = rng.binomial(size, share, shape)
    ours, theirs = rng.binomial(treated, treatment), rng.binomial(size - treated, control)
    return np.cumsum(ours, axis=1), np.cumsum(theirs, axis=1)


def measure_interleaving(rng: random.Random, tests: int) -> dict[str, float]:
    """Return how many users either test needs for 80 % power, and the power that simulated tests of that size have."""
    # What a very large test would see: shares of users who click, of lists that a wins, b wins, nobody wins.
    rates = [sum(success(one, rng) for _ in range(USERS_SEEN)) / USERS_SEEN for one in (BASELINE, POLICY)]
    better, equal = (_vote_shares(BASELINE, other, rng) for other in (POLICY, BASELINE))

    # Users of one look at the end, two-sided 5 %.
    decided = better[0] + better[1]
    ab = sum(users_needed(rates[0], rates[1] - rates[0]))
    lists = math.ceil(_votes_needed(better[1] / decided) / decided)

    # Tests of that size; only their counts are drawn.
    counts = np.random.default_rng(rng.randrange(2**32))
    half = ab // 2
    drawn = zip(counts.binomial(half, rates[0], tests), counts.binomial(half, rates[1], tests), strict=True)
    ab_found = sum(difference_interval(Rate(int(c), half), Rate(int(t), half))[0] > 0 for c, t in drawn)
    found, wrong = (sum(map(_b_wins, counts.multinomial(lists, shares, tests))) for shares in (better, equal))
    return {
        "click_rate_baseline": round(rates[0], 4),
        "click_rate_policy": round(rates[1], 4),
        "ab_users": ab,
        "ab_power": ab_found / tests,
        "interleaved_lists": lists,
        "interleaving_power": found / tests,
        "interleaving_false_positives": wrong / tests,
        "users_saved_factor": round(ab / lists, 1),
    }


def _votes_needed(share: float) -> float:
    """Return how many votes show that a share is above one half (normal approximation)."""
    spread = norm.ppf(0.975) * 0.5 + norm.ppf(POWER) * math.sqrt(share * (1 - share))
    return float((spread / (share - 0.5)) ** 2)


def _vote_shares(a: Rewriter, b: Rewriter, rng: random.Random) -> tuple[float, float, float]:
    """Return which shares of the interleaved lists a wins, b wins, and nobody wins."""
    votes = [vote(a, b, rng) for _ in range(USERS_SEEN)]
    for_a, for_b = (sum(one * sign > 0 for one in votes) / USERS_SEEN for sign in (1, -1))
    return for_a, for_b, 1 - for_a - for_b


def _b_wins(counts: NDArray[Any]) -> bool:
    """Return whether a sign test finds that b is better, two-sided 5 %."""
    for_a, for_b, _ = (int(count) for count in counts)
    return for_b > for_a and binomtest(for_b, for_a + for_b).pvalue < 0.05


def _print(
    console: Console,
    equal: dict[tuple[float, float], tuple[float, float]],
    power: dict[tuple[float, int], float],
    sensitivity: dict[str, float],
) -> None:
    table = Table("rate", "share", "treatment wins", "control wins", title=f"A/A, {LOOKS} looks (2.5 % a side allowed)")
    for (rate, share), (above, below) in equal.items():
        table.add_row(f"{rate:.0%}", f"{share:.0%}", f"{above:.1%}", f"{below:.1%}")
    console.print(table)
    for (rate, times), value in power.items():
        console.print(f"rate {rate:.0%}, lift 10 %, {times} × the users of one look for 80 %: found in {value:.1%}")
    console.print(
        f"A/B {sensitivity['ab_users']:,} users (power {sensitivity['ab_power']:.0%}), interleaving "
        f"{sensitivity['interleaved_lists']:,} lists (power {sensitivity['interleaving_power']:.0%}): "
        f"{sensitivity['users_saved_factor']} × fewer"
    )


if __name__ == "__main__":
    raise SystemExit(main())
