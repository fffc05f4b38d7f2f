"""Looks at a running test, as many and whenever one likes. Pure.

Whom an event comes from does not depend on the arms when they do equally well: each event is the treatment's with the
probability of its share of the users. That is a coin, and a coin can be tested at every toss (Lindon and Malek,
Anytime-valid inference for multinomial count data, NeurIPS 2022; the mixture is Robbins 1970). By Ville's inequality
all looks together are wrong with probability `ALPHA` at most, each side with half of it: exactly, for any rate, share
and number of looks. Users without an event are not looked at: that costs next to nothing while rates are low, and at a
rate of one half as much as half of the users.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincc, betaln, rel_entr, xlog1py, xlogy

ALPHA = 0.05  # two-sided


def prior_strength(share: float, lift: float) -> float:
    """Return κ of the prior Beta(share·κ, (1 − share)·κ) whose deviation is what a planned lift makes of the share.

    Args:
        lift: relative, 0.1 for a rate that rises by a tenth.
    """
    shift = treatment_share(share, 1 + lift) - share
    return max(share * (1 - share) / shift**2 - 1, 2.0)


def treatment_share(share: float, ratio: float) -> float:
    """Return which share of the events is the treatment's when its rate is `ratio` times the control's."""
    return share * ratio / (share * ratio + 1 - share)


def rate_ratio(event_share: float, share: float) -> float:
    """Return treatment's rate / control's, from the treatment's share of the events; inverse of `treatment_share`."""
    if event_share >= 1:
        return math.inf
    return event_share * (1 - share) / (share * (1 - event_share))


def log_evidence(ours: Any, theirs: Any, null: float, share: float, strength: float) -> Any:
    """Return the logarithm of the evidence that events are ours with a probability above `null`; arrays too.

    A test martingale from 1 where the probability is `null`: it passes 1/q with probability q at most.

    Args:
        ours, theirs: events of either arm so far.
        share, strength: of the prior (`prior_strength`), of which the part above `null` counts.
    """
    a, b = share * strength, (1 - share) * strength
    prior_above = betaincc(a, b, null)
    if not prior_above > 0:
        return np.full(np.shape(ours), -math.inf)[()]  # a null that the prior cannot tell from 1 is never refused
    with np.errstate(divide="ignore"):
        above = np.log(betaincc(a + ours, b + theirs, null)) - math.log(prior_above)
    mixture = betaln(a + ours, b + theirs) - betaln(a, b) + above
    return mixture - xlogy(ours, null) - xlog1py(theirs, -null)


def is_above(ours: Any, theirs: Any, share: float, strength: float) -> Any:
    """Return whether events come from us more often than `share` says, at this look; arrays too."""
    x, y = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
    seen = x / np.maximum(x + y, 1)
    # The evidence is a mean of likelihood ratios: where the largest of them does not suffice, it does not either.
    largest = np.where(seen > share, rel_entr(x, (x + y) * share) + rel_entr(y, (x + y) * (1 - share)), 0.0)
    above = largest >= math.log(2 / ALPHA)
    above[above] = log_evidence(x[above], y[above], share, share, strength) >= math.log(2 / ALPHA)
    return above.reshape(np.shape(ours)) if np.ndim(ours) else bool(above[0])


def event_share_interval(ours: int, theirs: int, share: float, strength: float) -> tuple[float, float]:
    """Return the always-valid interval of the probability that an event is ours; [0, 1] without events."""
    low = _lower(ours, theirs, share, strength)
    return low, 1 - _lower(theirs, ours, 1 - share, strength)


def _lower(ours: int, theirs: int, share: float, strength: float) -> float:
    if not ours:
        return 0.0

    def too_much(null: float) -> float:
        evidence = float(log_evidence(ours, theirs, null, share, strength))
        return max(evidence, -1e6) - math.log(2 / ALPHA)  # brentq wants finite ends

    # The evidence falls as the null nears what was seen.
    tiny, seen = 1e-9, min(ours / (ours + theirs), 1 - 1e-9)
    if too_much(tiny) <= 0:
        return 0.0
    return float(brentq(too_much, tiny, seen)) if too_much(seen) < 0 else seen
