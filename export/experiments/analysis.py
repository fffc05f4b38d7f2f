"""What a test says: one mapping of numbers, for a reader and for a file. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from statistics import median, quantiles
from typing import Any

from scipy.stats import binomtest

from export.experiments.log_reading import Split, TestLog
from export.experiments.rates import (
    MISMATCH,
    Rate,
    difference_interval,
    rate_interval,
    ratio_p_value,
    smallest_effect,
    users_needed,
)
from export.experiments.sequential import event_share_interval, is_above, prior_strength, rate_ratio
from export.serving.interleaving import Drafted, credit

# Votes of 60 to 40 are to be found.
PLANNED_PREFERENCE = 0.2


def analyse_arms(test: TestLog, split: Split, event: str, lift: float) -> dict[str, Any]:
    """Return rates, ratio of users, plan and looks of an A/B test.

    Args:
        event: that counts; a user counts once.
        lift: the relative rise that the test is to find.
    """
    control, treatment = split.control, split.treatment
    had = test.events.get(event, {})
    rates = {}
    for arm in (control, treatment):
        users = [unit for unit, seen in test.units.items() if seen.arm == arm]
        rates[arm] = Rate(sum(unit in had for unit in users), len(users))
    mismatch = ratio_p_value([rates[control].n, rates[treatment].n], [1 - split.share, split.share])
    looks = _looks(test, had, split, lift)
    others = {name: len(units) for name, units in sorted(test.events.items()) if name != event}
    return {
        "event": event,
        "other_events": others,
        "control": control,
        "treatment": treatment,
        "share": split.share,
        "arms": {arm: _arm(test, arm, rate) for arm, rate in rates.items()},
        "difference": {
            "value": _known(rates[treatment].value - rates[control].value),
            "ci95": list(difference_interval(rates[control], rates[treatment])),
            "valid": "for one look at the end",
        },
        "sample_ratio": {"p": mismatch, "mismatch": mismatch < MISMATCH},
        "plan": _plan(rates[control], rates[treatment], split.share, lift),
        "sequential": looks,
        "verdict": _verdict(looks, mismatch < MISMATCH, control, treatment, split.share),
    }


def analyse_interleaving(test: TestLog) -> dict[str, Any]:
    """Return who wins the interleaved lists: a user's first list with a winner is one vote (sign test)."""
    lists = sorted(test.impressions.values(), key=lambda one: one.at)
    votes: dict[str, tuple[str, bool]] = {}
    for impression in lists:
        drafted = [Drafted(document, "a" if team == "a" else "b") for document, team in impression.shown]
        if impression.unit not in votes and (won := credit(drafted, impression.clicked)):
            votes[impression.unit] = (impression.at.date().isoformat(), won < 0)
    wins = Counter("b" if for_b else "a" for _, for_b in votes.values())
    users, decided = len({impression.unit for impression in lists}), len(votes)
    strength = prior_strength(0.5, (1 + PLANNED_PREFERENCE) / (1 - PLANNED_PREFERENCE) - 1)
    looks = _sequence(votes.values(), 0.5, strength)
    sign = binomtest(wins["b"], decided) if decided else None
    interval = sign.proportion_ci(0.95, method="wilson") if sign else None
    return {
        "a": lists[0].a,
        "b": lists[0].b,
        "impressions": len(lists),
        "clicked": sum(bool(impression.clicked) for impression in lists),
        "users": users,
        "wins_a": wins["a"],
        "wins_b": wins["b"],
        "ties": users - decided,
        "b_share_of_wins": wins["b"] / decided if decided else None,
        "ci95": [float(interval.low), float(interval.high)] if interval else [0.0, 1.0],
        "sign_test_p": float(sign.pvalue) if sign else 1.0,
        "sequential": looks,
        "verdict": _verdict(looks, False, lists[0].a, lists[0].b),
    }


def _arm(test: TestLog, arm: str, rate: Rate) -> dict[str, Any]:
    seen = [one for one in test.units.values() if one.arm == arm]
    answers, originals = sum(one.answers for one in seen), sum(one.originals for one in seen)
    times = test.milliseconds.get(arm, [])
    return {
        **asdict(rate),
        "rate": _known(rate.value),
        "ci95": list(rate_interval(rate)),
        "answers": answers,
        "original_share": originals / answers if answers else None,
        "failures": {why: count for (of, why), count in sorted(test.failures.items()) if of == arm},
        "ms_p50": median(times) if times else None,
        "ms_p95": quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else None,
    }


def _plan(control: Rate, treatment: Rate, share: float, lift: float) -> dict[str, Any]:
    """Say how many users the planned lift needs, and what these users could have shown."""
    base = control.value
    try:
        needed = sum(users_needed(base, base * lift, share))
    except ValueError:
        needed = None
    effect = smallest_effect(base, control.n, treatment.n) if control.n else math.nan
    return {
        "lift": lift,
        "users_needed": needed,
        "users": control.n + treatment.n,
        "smallest_lift": effect / base if base and not math.isnan(effect) else None,
    }


def _looks(test: TestLog, had: Mapping[str, str], split: Split, lift: float) -> dict[str, Any]:
    share = split.share
    if not 0 < share < 1:
        return {"winner": None, "decided_on": None, "events": [0, 0], "rate_ratio": None, "ci95": [0.0, None]}
    arms = {unit: test.units[unit].arm for unit in had}
    events = [(day, arms[unit] == split.treatment) for unit, day in had.items()]
    return _sequence(events, share, prior_strength(share, lift))


def _sequence(events: Iterable[tuple[str, bool]], share: float, strength: float) -> dict[str, Any]:
    """Look after each day. `events`: (day, whether it is the treatment's), in the order of the days."""
    ours, theirs = Counter[str](), Counter[str]()
    for day, is_treatment in events:
        (ours if is_treatment else theirs)[day] += 1
    winner = decided_on = None
    t = c = 0
    for day in sorted({*ours, *theirs}):
        t, c = t + ours[day], c + theirs[day]
        if winner is None and is_above(t, c, share, strength):
            winner, decided_on = "treatment", day
        if winner is None and is_above(c, t, 1 - share, strength):
            winner, decided_on = "control", day
    low, high = event_share_interval(t, c, share, strength)
    ratio = rate_ratio(t / (t + c), share) if t + c else None
    upper = rate_ratio(high, share)
    return {
        "winner": winner,
        "decided_on": decided_on,
        "events": [c, t],
        "rate_ratio": None if ratio is None or math.isinf(ratio) else ratio,
        "ci95": [rate_ratio(low, share), None if math.isinf(upper) else upper],
        "valid": "at every look",
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _verdict(looks: dict[str, Any], mismatch: bool, control: str, treatment: str, share: float = 0.5) -> str:
    if not 0 < share < 1:
        return f"nothing to compare: every user gets {treatment if share else control} (share {share:g})"
    if mismatch:
        return "the arms did not get their shares of the users: find the cause before reading anything else"
    if looks["winner"] is None:
        return "undecided: go on, or stop at the planned number of users"
    return f"{treatment if looks['winner'] == 'treatment' else control} is better (seen on {looks['decided_on']})"
