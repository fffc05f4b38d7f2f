"""Turn a judge's verdicts into the part `judge` of `metrics.json`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.judging.asking import Grades, Preference, Preferences, Verdicts
from evaluation.judging.calibration import Calibration, as_metrics
from evaluation.metrics import summarise
from evaluation.significance import holm, win_rate
from reward.records.call import ServiceFailure
from reward.records.outcome import Verdict

DIMENSIONS = {
    "rewrite_quality": "quality",
    "domain_fit": "domain",
    "intent_kept": "intent",
    "retrievability": "retrievability",
    "overall": "overall",
}
Texts = Mapping[str, Sequence[str]]
# An empty rewrite is the system's own fault: nobody is paid to say so.
WORST = Verdict(quality=1, domain=1, intent=1, retrievability=1, reason="empty rewrite")


def questions(
    texts: Texts, pairs: Sequence[tuple[str, str]]
) -> tuple[list[tuple[int, str]], list[tuple[int, str, str]]]:
    """Return what is to be asked, each question once: gradings (place, rewrite), comparisons (place, a, b)."""
    grades = {(i, text): None for rewrites in texts.values() for i, text in enumerate(rewrites) if text.strip()}
    comparisons = {
        (i, a, b): None
        for one, other in pairs
        for i, (a, b) in enumerate(zip(texts[one], texts[other], strict=True))
        if a.strip() and b.strip()
    }
    return list(grades), list(comparisons)


def judge_metrics(
    texts: Texts,
    pairs: Sequence[tuple[str, str]],
    verdicts: Verdicts,
    calibration: Calibration | None,
    *,
    seed: int,
) -> dict[str, Any]:
    """Compute `systems` (over the samples that every system has a grade for), `win_rate` and `abstained`.

    Args:
        texts: system -> rewrite of each sample.
        pairs: the pairs to compare, in the order shown.
    """
    graded = {name: [_grade(verdicts.grades, i, text) for i, text in enumerate(t)] for name, t in texts.items()}
    n = len(next(iter(texts.values())))
    common = [i for i in range(n) if all(isinstance(grades[i], Verdict) for grades in graded.values())]
    win_rates = {
        f"{a}_vs_{b}": _win_rate(texts[a], texts[b], verdicts.preferences, calibration, seed) for a, b in pairs
    }
    adjusted = holm([result["sign_p"] for result in win_rates.values()])
    return {
        "systems": {
            name: _summary([v for i in common if isinstance(v := grades[i], Verdict)], seed)
            for name, grades in graded.items()
            if common
        },
        "win_rate": {pair: {**win_rates[pair], "sign_p_holm": p} for pair, p in zip(win_rates, adjusted, strict=True)},
        "abstained": {
            "grades": {
                name: sum(isinstance(grade, ServiceFailure) for grade in grades) for name, grades in graded.items()
            },
            "samples": n - len(common),
            "not_asked": verdicts.not_asked,
        },
    }


def preference(preferences: Preferences, i: int, a: str, b: str) -> Preference | ServiceFailure:
    """Return which of two rewrites of a sample is preferred: an empty one loses to any other, unasked."""
    if not a.strip() or not b.strip():
        return Preference(bool(a.strip()) - bool(b.strip()))
    return preferences[i, a, b]


def _grade(grades: Grades, i: int, text: str) -> Verdict | ServiceFailure:
    return grades[i, text] if text.strip() else WORST


def _summary(verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    summary = summarise([{n: getattr(v, f) for n, f in DIMENSIONS.items()} for v in verdicts], seed=seed)
    known = [verdict.facts_kept for verdict in verdicts if verdict.facts_kept is not None]
    return {**summary, "facts_kept": sum(known) / len(known) if known else None}


def _win_rate(
    a: Sequence[str], b: Sequence[str], preferences: Preferences, calibration: Calibration | None, seed: int
) -> dict[str, Any]:
    said = [preference(preferences, i, *texts) for i, texts in enumerate(zip(a, b, strict=True))]
    known = [one for one in said if isinstance(one, Preference)]
    result = win_rate([one.value for one in known], [0] * len(known), seed=seed) if known else None
    win, loss = (result.win, result.loss) if result else (0, 0)
    return {
        "win": win,
        "tie": result.tie if result else 0,
        "loss": loss,
        "abstained": len(said) - len(known),
        "orders_disagree": sum(not one.orders_agree for one in known),
        "rate": result.rate if result else None,
        "ci95": list(result.interval) if result and result.interval else None,
        "sign_p": result.sign_p if result else 1.0,
        "corrected": as_metrics(win, win + loss, calibration) if calibration else None,
        "agreement": calibration.check.agreement if calibration else None,
        "kappa": calibration.check.kappa if calibration else None,
        "kappa_ci95": [calibration.check.kappa_low, calibration.check.kappa_high]
        if calibration and calibration.check.kappa is not None
        else None,
    }
