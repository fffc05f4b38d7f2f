"""Alarms on what the policy writes: copies, recitals, lost and invented facts, riders, drift. Pure."""

from __future__ import annotations

from collections import Counter

from reward.records.outcome import GateReason, Rollout
from reward.rollouts.alarm import Alarm, AlarmLimits, share_alarm
from reward.rollouts.text_measures import (
    INVENTED_FACTS,
    LOST_FACTS,
    NO_QUERY,
    character_entropy,
    fails_gates,
    is_stuffed,
)
from reward.rollouts.windows import Window, examples, mean
from reward.text.fold import fold_without_spaces
from reward.text.units import new_content


def copy_rate(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that add nothing to the query, but for those that are known to retrieve best."""

    def is_copy(rollout: Rollout) -> bool:
        best = rollout.policy is not None and rollout.policy.rank == 1
        is_text = bool(rollout.completion.strip())
        return is_text and not best and new_content(rollout.completion, rollout.sample.original_query) == 0

    advice = "queries come back unchanged: train on queries that need a rewrite, check that a copy earns nothing"
    return share_alarm("copy_rate", is_copy, first, last, limits.copy_rate, limits.rise, advice)


def baseline_copies(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that are the baseline's own words, in any order."""

    def is_copy(rollout: Rollout) -> bool:
        mine, theirs = rollout.completion, rollout.baseline_rewrite
        return bool(theirs) and new_content(mine, theirs) == new_content(theirs, mine) == 0

    advice = "the policy imitates the baseline instead of beating it: check that equal retrieval earns nothing"
    return share_alarm("baseline_copies", is_copy, first, last, limits.baseline_copies, limits.rise, advice)


def recitals(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that recite a passage they found: more new units in a row than `recital_units`."""

    def recites(rollout: Rollout) -> bool:
        return rollout.policy is not None and rollout.policy.copied_run > limits.recital_units

    advice = "passages are learnt by heart: raise reward.recital.penalty, hold passages out of training"
    rise = min(limits.rise, limits.recitals)
    return share_alarm("recitals", recites, first, last, limits.recitals, rise, advice)


def invented_facts(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that add a number, a negation, a protected term or a product, gated for it or not."""

    def invents(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, INVENTED_FACTS, last.lexicon)

    advice = "facts are made up: enable the *_invented gates, extend tenant.protected_groups and tenant.products"
    return share_alarm("invented_facts", invents, first, last, limits.invented_facts, limits.rise, advice)


def free_riders(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that carry what no query holds: tokens, labels, formatting, words to the judge."""

    def rides(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, NO_QUERY)

    advice = "something rides along with the rewrite: enable the gates template_leak, unparseable, judge_addressed"
    rise = min(limits.rise, limits.free_riders)
    return share_alarm("free_riders", rides, first, last, limits.free_riders, rise, advice)


def length_drift(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Mean length of a rewrite over that in the first window."""
    before, now = (mean(len(r.completion.strip()) for r in window.answered) for window in (first, last))
    if not before or now is None:
        return None
    ratio = now / before
    ranked = sorted(last.answered, key=lambda r: len(r.completion), reverse=ratio > 1)
    return Alarm(
        "length_drift",
        ratio,
        limits.length_growth if ratio > 1 else limits.length_shrink,
        f"from {before:.0f} to {now:.0f} characters: check length.target and length.penalty",
        examples(ranked, lambda r: f"{len(r.completion.strip())} characters"),
        first=1.0,
        raised=not limits.length_shrink <= ratio <= limits.length_growth,
    )


def entropy_drop(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Entropy of the rewrites' characters over that of the queries', relative to the first window: low when different
    queries get much the same rewrite. (That siblings grow alike is what training does, and no alarm.)"""

    def relative_entropy(window: Window) -> float:
        queries = character_entropy(fold_without_spaces(r.sample.original_query) for r in window.answered)
        rewrites = character_entropy(fold_without_spaces(r.completion) for r in window.answered)
        return rewrites / queries if queries else 0.0

    before, now = relative_entropy(first), relative_entropy(last)
    if before == 0:
        return None
    given = Counter(fold_without_spaces(r.completion) for r in last.answered)
    ranked = sorted(last.answered, key=lambda r: -given[fold_without_spaces(r.completion)])
    return Alarm(
        "entropy_drop",
        now / before,
        limits.entropy_drop,
        "different queries get the same words: raise the entropy or KL coefficient, or stop earlier",
        examples(ranked, lambda r: f"given {given[fold_without_spaces(r.completion)]} times"),
        first=1.0,
        raised=now / before < limits.entropy_drop,
    )


def entity_drop(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites that lose a number, a negation or a protected term of the query, gated for it or not."""

    def loses(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, LOST_FACTS, last.lexicon)

    advice = "facts of the query get lost: enable the *_dropped gates, extend tenant.protected_groups"
    return share_alarm("entity_drop", loses, first, last, limits.entity_drop, limits.rise, advice)


def language_switch(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of rewrites in another language than the query, gated for it or not."""

    def switches(rollout: Rollout) -> bool:
        return fails_gates(rollout.sample, rollout.completion, (GateReason.LANGUAGE_SWITCH,))

    advice = "rewrites leave the query's language: enable the gate language_switch, raise the KL coefficient"
    rise = min(limits.rise, limits.language_switch)
    return share_alarm("language_switch", switches, first, last, limits.language_switch, rise, advice)


def keyword_stuffing(first: Window, last: Window, limits: AlarmLimits) -> Alarm | None:
    """Share of stuffed rewrites (`is_stuffed`); the limit lies above the baseline's own share."""
    baseline = mean(is_stuffed(r.baseline_rewrite) for r in last.answered if r.baseline_rewrite) or 0.0
    limit = min(1.0, limits.keyword_stuffing + baseline)
    advice = "words are repeated or piled up: raise length.penalty, read what retrieves so well"
    return share_alarm("keyword_stuffing", lambda r: is_stuffed(r.completion), first, last, limit, limits.rise, advice)
