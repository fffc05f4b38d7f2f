"""A window of a run's rollouts and what the alarms read off it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from reward.records.outcome import Abstained, Gated, Parts, Rollout, Scored
from reward.text.terms import NO_TERMS, Lexicon

SHOWN = 3
EQUAL = 1e-6  # rewards, and variances, that differ by less are equal


@dataclass(frozen=True)
class Window:
    """Training rollouts of some steps; `lexicon` holds the tenant's groups and products."""

    rollouts: Sequence[Rollout]
    lexicon: Lexicon = NO_TERMS

    @cached_property
    def answered(self) -> list[Rollout]:
        return [rollout for rollout in self.rollouts if not isinstance(rollout.outcome, Abstained)]

    @cached_property
    def scored(self) -> list[tuple[Rollout, Parts]]:
        return [(r, r.outcome.parts) for r in self.rollouts if isinstance(r.outcome, Scored)]

    @cached_property
    def terms(self) -> tuple[list[float], list[float]]:
        """The judge's and the retrieval term of each rollout that has both."""
        both = [(p.judge, p.retrieval) for _, p in self.scored if p.judge is not None and p.retrieval is not None]
        return [judge for judge, _ in both], [retrieval for _, retrieval in both]

    @cached_property
    def groups(self) -> list[list[Rollout]]:
        """Siblings: the answered rollouts of one prompt in one step, where there are at least two."""
        groups: dict[tuple[int, str, str], list[Rollout]] = {}
        for rollout in self.answered:
            key = (rollout.step, rollout.sample.sample_id, rollout.sample.original_query)
            groups.setdefault(key, []).append(rollout)
        return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class Example:
    step: int
    query: str
    rewrite: str
    note: str = ""


def contributions(parts: Parts) -> dict[str, float]:
    """What each part adds to the reward before it is clipped; v1's bonus has the weight that the two terms leave."""
    rest = 1 - parts.weight_retrieval - parts.weight_judge
    return {
        "retrieval": parts.weight_retrieval * (parts.retrieval or 0.0),
        "judge": parts.weight_judge * (parts.judge or 0.0),
        "length_penalty": -parts.length_penalty,
        "recital_penalty": -parts.recital_penalty,
        "idle_penalty": -parts.weight_retrieval * parts.idle_penalty,
        "bonus": rest * parts.bonus,
    }


def variance_shares(window: Window) -> dict[str, float]:
    """The share of the reward's variance that each part explains: cov(part, sum) / var(sum); they sum to 1."""
    rows = [contributions(parts) for _, parts in window.scored]
    total = np.array([sum(row.values()) for row in rows])
    if total.size < 2 or total.var() < EQUAL:
        return {}
    return {name: float(np.cov([row[name] for row in rows], total, ddof=0)[0, 1] / total.var()) for name in rows[0]}


def disputed(window: Window) -> tuple[Example, ...]:
    """What the judge likes and retrieval does not."""
    both = [(r, p.judge, p.retrieval) for r, p in window.scored if p.judge is not None and p.retrieval is not None]
    both.sort(key=lambda row: row[2] - row[1])
    notes = {id(r): f"judge {judge:+.2f}, retrieval {retrieval:+.2f}" for r, judge, retrieval in both}
    return examples([r for r, _, _ in both], lambda r: notes[id(r)])


def examples(rollouts: Iterable[Rollout], note: Callable[[Rollout], str]) -> tuple[Example, ...]:
    """The first few with different rewrites; a gated or abstained one says why."""
    shown: dict[tuple[str, str], Example] = {}
    for rollout in rollouts:
        key = (rollout.sample.original_query, rollout.completion.strip())
        if key not in shown:
            outcome = rollout.outcome
            why = f"{outcome.reason.value} {outcome.detail}" if isinstance(outcome, Gated | Abstained) else ""
            shown[key] = Example(rollout.step, *key, "; ".join(n for n in (note(rollout), why.strip()) if n))
        if len(shown) == SHOWN:
            break
    return tuple(shown.values())


def mean(values: Iterable[float]) -> float | None:
    """Their mean; None without any."""
    listed = list(values)
    return fmean(listed) if listed else None
