"""Which single queries the report shows: drawn examples, the worst losses, the greatest gains, the harmed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

EXAMPLES, EXTREMES = 10, 5
Row = Mapping[str, Any]


def choose_examples(
    rows: Sequence[Row], a: str, b: str, *, by_rank: bool, seed: int, count: int = EXAMPLES
) -> list[dict[str, Any]]:
    """Draw `count` compared samples with a seed, each with `outcome` of `a` against `b`: win, tie or loss.

    The outcomes are represented in proportion (largest remainders), with at least one example of each that occurs.
    """
    # Sort the samples that both systems answered by their outcome.
    groups: dict[str, list[dict[str, Any]]] = {"win": [], "tie": [], "loss": []}
    for row, gain in compared(rows, a, b, by_rank=by_rank):
        outcome = "win" if gain > 0 else "loss" if gain < 0 else "tie"
        groups[outcome].append({**row, "outcome": outcome})
    # Give each outcome its share of the places, rounded down, but one at least; then deal out what is left.
    present = {name: members for name, members in groups.items() if members}
    total = sum(len(members) for members in present.values())
    share = {name: count * len(members) / total for name, members in present.items()}
    seats = {name: min(len(present[name]), max(1, int(share[name]))) for name in present}
    by_remainder = sorted(present, key=lambda name: int(share[name]) - share[name])
    while sum(seats.values()) < min(count, total):
        name = next(n for n in [*by_remainder, *present] if seats[n] < len(present[n]))
        seats[name] += 1
        by_remainder = [n for n in by_remainder if n != name]
    while sum(seats.values()) > count:
        seats[max(seats, key=lambda name: seats[name])] -= 1
    choice = random.Random(seed)
    return [row for name in present for row in choice.sample(present[name], seats[name])]


def extremes(
    rows: Sequence[Row], a: str, b: str, *, by_rank: bool, count: int = EXTREMES
) -> tuple[list[Row], list[Row]]:
    """Return the samples on which `a` loses most to `b`, and those on which it gains most, the greatest first."""
    ordered = sorted(compared(rows, a, b, by_rank=by_rank), key=lambda pair: pair[1])
    losses = [row for row, gain in ordered if gain < 0][:EXTREMES]
    gains = [row for row, gain in reversed(ordered) if gain > 0][:EXTREMES]
    return losses, gains


def compared(rows: Sequence[Row], a: str, b: str, *, by_rank: bool) -> list[tuple[Row, float]]:
    """Return the samples that both systems answered, with the gain of `a` over `b` in what decides a query: the
    reciprocal rank, or the score of the first hit."""
    found = []
    for row in rows:
        systems = row.get("systems") or {}
        if row.get("abstained") or not all(_is_answered(systems.get(name)) for name in (a, b)):
            continue
        found.append((row, _value(systems[a], by_rank) - _value(systems[b], by_rank)))
    return found


def _is_answered(side: Any) -> bool:
    return isinstance(side, Mapping) and "top1" in side


def _value(side: Mapping[str, Any], by_rank: bool) -> float:
    if by_rank:
        return 1 / side["rank"] if side.get("rank") else 0.0
    return float(side["top1"])
