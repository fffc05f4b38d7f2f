"""How often does the promotion gate promote a model that is no better, and how often one that is?

    python -m benchmarks.promotion [--simulations 1000] [--power-simulations 100] [--seed 0]

A simulated evaluation draws its queries from recorded ones (`benchmarks/promotion_runs/ranks.json`: the ranks that the
customer's words, the baseline and the trained model had for the same query, on published conversations and on the
sample tenant). It gives the two ranks of each query to candidate and baseline by lot: with one half neither is better,
with w the candidate wins that share of the queries that differ. `evaluation.metrics` and the rules of `export.promote`
judge it by win rate, slices of query length and profile, and harmed queries. The rules that need other figures (judge,
latency, cost, audit, retriever) are off: they could only lower both shares.

- *false promotions*: share of A/A evaluations that end in PROMOTE. Aim: at most .025.
- *power*: the same of evaluations with a candidate that is better; beside it what the win rate alone would promote.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from evaluation.comparison import BY_RANK
from evaluation.conclusion import LEVEL
from evaluation.metrics import compare_systems, reciprocal_rank
from evaluation.significance import bootstrap_mean
from export.versions.evidence import Evidence
from export.versions.rules import Candidate, Finding, check_rules, verdict_of
from reward.settings.promotion import PromotionSettings, SafetySettings

RANKS = Path(__file__).parent / "promotion_runs" / "ranks.json"
# Of the rules only those that a simulation has figures for.
SETTINGS = PromotionSettings(
    judge_win_rate=None,
    safety=SafetySettings(judge={}),
    latency_p50_ms=None,
    latency_p95_ms=None,
    cost_per_1000_usd=None,
    audit=False,
    same_retriever=False,
)
AIM = 0.025
QUERIES = (60, 200, 500)
WIN_RATES = (0.55, 0.6, 0.65, 0.7, 0.8)
WIN_RULE = "win_rate against baseline"

console = Console()


class Simulated:
    """One evaluation, as far as the rules read it; slices and harmed queries only where the win rate has passed.

    Args:
        ranks: recorded ranks, shape [records, 3]: original, baseline, model; 0 is not found.
        win_rate: chance that the candidate gets the better rank of a query.
    """

    def __init__(self, ranks: NDArray[np.int64], queries: int, win_rate: float, rng: np.random.Generator):
        drawn = ranks[rng.integers(0, len(ranks), size=queries)]
        value = np.where(drawn == 0, 0.0, 1.0 / np.maximum(drawn, 1))
        better, worse = value[:, 1:].max(axis=1), value[:, 1:].min(axis=1)
        wins = rng.random(queries) < win_rate
        self.original = value[:, 0]
        self.candidate, self.baseline = np.where(wins, better, worse), np.where(wins, worse, better)
        short, profile = rng.random(queries) < 0.5, rng.random(queries) < 0.4
        self.slices = {"short": short, "long": ~short, "with_profile": profile, "without_profile": ~profile}

    def decided(self) -> bool:
        """Return whether the sign test tells the two apart. If not, the win rate's rule holds, whatever the bootstrap
        says: it is not computed then."""
        wins, losses = int((self.candidate > self.baseline).sum()), int((self.candidate < self.baseline).sum())
        return wins + losses > 0 and binomtest(wins, wins + losses).pvalue < LEVEL

    def findings(self) -> list[Finding]:
        """Return what the rules find, those after the win rate only where it passes."""
        everything = np.ones(len(self.candidate), dtype=bool)
        metrics: dict[str, Any] = {
            "systems": {"candidate": {"n": len(everything)}},
            "win_rate": {"candidate_vs_baseline": self._compare(everything)},
            "provenance": {"counts": {"evaluated": len(everything), "abstained": 0}, "judged_by": BY_RANK},
        }
        found = check_rules(Evidence(metrics), Candidate("candidate"), SETTINGS)
        if next(finding for finding in found if finding.rule == WIN_RULE).outcome != "pass":
            return found
        harmed = (self.candidate < self.original).astype(float)
        metrics |= {
            "slices": {name: {} for name in self.slices},
            "slice_win_rate": {
                name: {"candidate_vs_baseline": self._compare(rows)} for name, rows in self.slices.items()
            },
            "harmed": {"candidate": {"share": float(harmed.mean()), "ci95": list(bootstrap_mean(harmed))}},
        }
        return check_rules(Evidence(metrics), Candidate("candidate"), SETTINGS)

    def _compare(self, rows: NDArray[np.bool_]) -> dict[str, Any]:
        a, b = self.candidate[rows], self.baseline[rows]
        return compare_systems(a.tolist(), b.tolist(), "mrr@10", _at_10(a), _at_10(b))


def _at_10(values: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return MRR@10 of each query: below the tenth place it counts nothing."""
    return [{"mrr@10": value if value >= reciprocal_rank(10) else 0.0} for value in values.tolist()]


def promoted(
    ranks: Sequence[NDArray[np.int64]], simulations: int, queries: int, win_rate: float, seed: int
) -> dict[str, float]:
    """Return the shares of simulated evaluations that end in each way, over the pools of ranks in turn."""
    rng = np.random.default_rng(seed)
    ends = {"promoted": 0, "win_rate_alone": 0, "rejected": 0}
    for number in range(simulations):
        simulated = Simulated(ranks[number % len(ranks)], queries, win_rate, rng)
        if not simulated.decided():
            continue
        findings = simulated.findings()
        verdict = verdict_of(findings)
        ends["promoted"] += verdict == "PROMOTE"
        ends["rejected"] += verdict == "REJECT"
        ends["win_rate_alone"] += next(f for f in findings if f.rule == WIN_RULE).outcome == "pass"
    return {end: count / simulations for end, count in ends.items()}


def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    pools = [np.asarray(rows, dtype=np.int64) for rows in json.loads(RANKS.read_text(encoding="utf-8")).values()]
    table = Table("queries", "win rate of the decided", "promoted", "by the win rate alone", "rejected")

    def measure(simulations: int, queries: int, win_rate: float) -> dict[str, float]:
        found = promoted(pools, simulations, queries, win_rate, args.seed)
        table.add_row(str(queries), f"{win_rate:.0%}", *(f"{found[end]:.3f}" for end in found))
        return found

    same = {str(queries): measure(args.simulations, queries, 0.5) for queries in args.queries}
    power = {
        str(queries): {str(rate): measure(args.power_simulations, queries, rate) for rate in WIN_RATES}
        for queries in args.queries
    }
    console.print(table)
    worst = max(found["promoted"] for found in same.values())
    console.print(f"false promotions: {worst:.3f} at most, aim {AIM}: {'met' if worst <= AIM else 'missed'}")
    result = {"simulations": args.simulations, "power_simulations": args.power_simulations, "seed": args.seed}
    print(json.dumps({**result, "false_promotions": worst, "aim": AIM, "same": same, "power": power}))
    return 0 if worst <= AIM else 1


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="False promotions and power of the promotion gate, simulated.")
    parser.add_argument("--simulations", type=int, default=1000, help="of two equal systems, for each size")
    parser.add_argument("--power-simulations", type=int, default=100, help="of each effect and size")
    parser.add_argument("--queries", type=int, nargs="+", default=list(QUERIES), help="sizes of the test set")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
