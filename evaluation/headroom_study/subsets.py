"""Search the subsets of a query's words for the one that retrieves best: all where that is affordable, else greedy from
both ends. The rank of the first relevant passage decides, so the choice is made with hindsight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from evaluation.headroom_study.asking import NOTHING, Result, Retrieved
from reward.records.call import FailureKind, ServiceFailure

Subset = frozenset[int]
Ask = Callable[[Subset], Awaitable[Result]]


@dataclass
class Search:
    """The subsets asked about and the best of them.

    Args:
        best: the words kept; None before any answer.
        answers: subset → what it retrieved, without failures.
        admits: says which subsets count; the others are never asked about.
        barred: subsets that do not count.
        exhaustive: every subset that counts was asked about.
        cut_short: the cap on requests of the whole study ended the search.
    """

    best: Subset | None = None
    found: Retrieved = NOTHING
    answers: dict[Subset, Retrieved] = field(default_factory=dict)
    admits: Callable[[Subset], bool] = lambda subset: True
    barred: set[Subset] = field(default_factory=set)
    failed: int = 0
    exhaustive: bool = False
    cut_short: bool = False


def is_better(one: Retrieved, other: Retrieved) -> bool:
    """Say whether `one` found a relevant passage at a better rank."""
    return _place(one) < _place(other)


async def search_subsets(
    count: int,
    ask: Ask,
    most: int,
    known: Retrieved,
    order: Sequence[int] = (),
    admits: Callable[[Subset], bool] = lambda subset: True,
) -> Search:
    """Search the subsets of `count` words, of which all together found `known`.

    With at most `most` subsets all are asked about. Otherwise half of the questions go to leaving words out one by one,
    the rest to adding words one by one to the best single one; what makes the rank no worse stays. A search ends where
    the passage is first.

    Args:
        most: subsets asked about, at most.
        order: in which words are left out, those that say least first; empty: as they stand.
        admits: says which subsets count.
    """
    whole = frozenset(range(count))
    search = Search(best=whole, found=known, answers={whole: known}, admits=admits)
    if known.rank == 1 or count < 2:
        search.exhaustive = count < 2
        return search
    if 2**count - 2 <= most:
        # Few words left out first; a level at a time, so that a rank of 1 ends the search.
        for size in range(count - 1, 0, -1):
            if await _ask_all(search, ask, map(frozenset, combinations(range(count), size)), most):
                return search
        search.exhaustive = not search.failed and not search.cut_short
        return search
    order = order or range(count)
    if await _leave_out(search, ask, whole, order, most // 2):
        return search
    singles = [frozenset({word}) for word in reversed(order)]
    if await _ask_all(search, ask, singles, most - (most - len(search.answers)) // 2):
        return search
    found = [single for single in singles if single in search.answers]
    if found:
        found.sort(key=lambda single: _place(search.answers[single]))
        await _put_in(search, ask, found[0], [word for single in found[1:] for word in single], most)
    return search


async def widen(search: Search, ask: Ask, base: Subset, extra: Sequence[int], most: int) -> Search:
    """Add words of `extra`, the most telling first, to `base`: some at once, then one by one, then without each.

    Args:
        most: subsets asked about, at most; those that `search` has already count.
    """
    at_once = [base | frozenset(extra[:size]) for size in (3, 6, 12)]
    if await _ask_all(search, ask, dict.fromkeys(at_once), most):
        return search
    if not await _put_in(search, ask, base, extra, most // 2):
        at = search.best or base
        await _leave_out(search, ask, at, sorted(at, reverse=True), most)
    return search


async def _leave_out(search: Search, ask: Ask, at: Subset, order: Sequence[int], most: int) -> bool:
    """Leave out word after word where that makes the rank no worse; return whether the passage came first."""
    changed = True
    while changed:
        changed = False
        for word in order:
            shorter = at - {word}
            if word not in at or not shorter:
                continue
            if await _ask_all(search, ask, [shorter], most):
                return True
            if shorter not in search.answers:
                if len(search.answers) >= most or search.cut_short:
                    return False
                continue
            # Where nothing is found either way the words stay: any of them may be the one that matters.
            if search.answers[shorter].rank and _place(search.answers[shorter]) <= _place(search.answers[at]):
                at, changed = shorter, True
    return False


async def _put_in(search: Search, ask: Ask, at: Subset, extra: Sequence[int], most: int) -> bool:
    """Put in word after word where that makes the rank better; return whether the passage came first."""
    changed = True
    while changed:
        changed = False
        for word in extra:
            longer = at | {word}
            if word in at:
                continue
            if await _ask_all(search, ask, [longer], most):
                return True
            if longer not in search.answers:
                if len(search.answers) >= most or search.cut_short:
                    return False
                continue
            if is_better(search.answers[longer], search.answers[at]):
                at, changed = longer, True
    return False


def _place(found: Retrieved) -> float:
    return found.rank or float("inf")


async def _ask_all(search: Search, ask: Ask, subsets: Iterable[Subset], most: int) -> bool:
    """Ask about the subsets that are new, as far as `most` reaches; return whether one has the passage first."""
    new = []
    for subset in subsets:
        if subset in search.answers or subset in search.barred:
            continue
        if search.admits(subset):
            new.append(subset)
        else:
            search.barred.add(subset)
    new = new[: max(0, most - len(search.answers))]
    for subset, answer in zip(new, await asyncio.gather(*map(ask, new)), strict=True):
        if isinstance(answer, ServiceFailure):
            search.cut_short |= answer.kind is FailureKind.BUDGET_SPENT
            search.failed += answer.kind is not FailureKind.BUDGET_SPENT
            continue
        search.answers[subset] = answer
        if is_better(answer, search.found):
            search.best, search.found = subset, answer
    return search.found.rank == 1
