"""Say in plain words how much room rewriting has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from evaluation.headroom_study.results import ANY
from evaluation.systems import BASELINE, ORIGINAL

MATERIAL = 0.02  # a gain below it pays for no training
FEWEST = 20  # queries; of fewer a bootstrap interval says too little
_PHRASES = {ORIGINAL: "the original query", BASELINE: "the deployed rewriter"}
_METRICS = {"mrr@10": "MRR@10", "top1": "the mean score of the first hit"}


class Verdict(NamedTuple):
    """`sentences` name the reference, the ceiling and the floor, each with its interval; `detail` what limits them."""

    outcome: Literal["room", "little", "undecided"]
    sentences: str
    detail: str


def verdict_of(results: Mapping[str, Any], *, by_rank: bool, synthetic: bool) -> Verdict:
    """Conclude from one channel's results, over the stronger of the original query and the deployed rewriter.

    Room is claimed where the interval of the gain that hindsight reaches lies above `MATERIAL`, little where it lies
    below; never of fewer than `FEWEST` queries. An interval has no width where every query gains the same, however few
    they are: one more query that gains all, or nothing, must not change the claim.
    """
    if not (n := results["n"]):
        why = f"They are left out: {_reasons(results['left_out'])}."
        return Verdict("undecided", "Nothing can be said: no query was answered for every rewrite.", why)
    metric = "mrr@10" if by_rank else "top1"
    systems, gains = results["systems"], results["gains"]
    reference = max((name for name in (ORIGINAL, BASELINE) if name in systems), key=lambda name: systems[name][metric])
    ceiling = gains[ANY][f"over_{reference}"]
    low, high = ceiling["ci95"]
    start, end = systems[reference][metric], systems[ANY][metric]
    reach = (
        f"the best rewrite tried of each query lifts {_METRICS[metric]} from {start:.3f} ({_PHRASES[reference]}) to "
        f"{end:.3f}, by {_signed(ceiling, metric)}"
    )
    if n >= FEWEST and low * n / (n + 1) > MATERIAL:
        outcome: Literal["room", "little", "undecided"] = "room"
        first = f"Rewriting has room on this knowledge base: with hindsight, {reach}."
    elif n >= FEWEST and (high * n + 1) / (n + 1) < MATERIAL:
        outcome = "little"
        first = f"Rewriting has little to gain on this knowledge base: even with hindsight, {reach}."
    else:
        outcome = "undecided"
        first = f"{n} queries cannot tell whether there is room: with hindsight, {reach}."
    return Verdict(
        outcome, f"{first} {_floor(systems, gains, reference, metric)}", _detail(results, by_rank, synthetic)
    )


def _floor(systems: Mapping[str, Any], gains: Mapping[str, Any], reference: str, metric: str) -> str:
    """Say what the best system without hindsight reaches: that much needs no knowledge of the answer."""
    usable = [name for name, system in systems.items() if not system["hindsight"] and name not in (ORIGINAL, BASELINE)]
    if not usable:
        return "That is a ceiling: the answer chose the rewrite."
    best = max(usable, key=lambda name: systems[name][metric])
    gain = gains[best][f"over_{reference}"]
    return (
        f"That is a ceiling, for the answer chose the rewrite; without hindsight the best of {len(usable)} "
        f"({best}) changes it by {_signed(gain, metric)}."
    )


def _detail(results: Mapping[str, Any], by_rank: bool, synthetic: bool) -> str:
    parts: list[str] = []
    if by_rank:
        where, n = results["where"], results["n"]
        parts.append(
            f"Of {n} queries {_share(where['first_already'], n)} have the passage first already, "
            f"{_share(where['can_be_first'], n)} can have it first and {_share(where['can_rise'], n)} can rise."
        )
        if lost := where["never_in_10"]:
            parts.append(
                f"For {_share(lost, n)} no rewrite tried brings it into the first 10: those need better passages or "
                "another retriever."
            )
    else:
        parts.append(
            "No relevant passages are known: the same score chooses and measures, so that the best of many overstates "
            "what it is worth (winner's curse)."
        )
    tried = results["search"]["rewrites_tried_mean"]
    parts.append(f"{tried:.0f} rewrites a query were tried; the best of more would be higher still.")
    for source, best in results["best_of"].items():
        curve = best["curve"]
        metric = next(name for name in best["hindsight"] if name != "ci95")
        parts.append(
            f"{source}: one draw {curve['1'][metric]:.3f}, the best of {best['n']} "
            f"{curve[str(best['n'])][metric]:.3f} (estimated without bias); chosen among them by the service's own "
            f"score instead of the answer, {best['chosen_by_score'][metric]:.3f}."
        )
    if synthetic:
        parts.append(
            "The queries were made from the passages' own words, which customers do not know: they are easier to find, "
            "and the room on real queries may be larger."
        )
    if lost := sum(results["left_out"].values()):
        parts.append(f"{lost} queries are left out: {_reasons(results['left_out'])}.")
    return " ".join(parts)


def _reasons(reasons: Mapping[str, int], most: int = 3) -> str:
    shown: Sequence[str] = [f"{count} × {reason}" for reason, count in list(reasons.items())[:most]]
    return "; ".join(shown) + ("; …" if len(reasons) > most else "")


def _signed(gain: Mapping[str, Any], metric: str) -> str:
    low, high = gain["ci95"]
    return f"{gain[metric]:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"


def _share(count: int, n: int) -> str:
    return f"{100 * count / n:.0f} %"
