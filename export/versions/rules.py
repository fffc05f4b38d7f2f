"""The rules of a promotion, and the verdict that follows from them. Pure.

A rule passes, holds (a figure is missing, or the interval leaves both answers open) or rejects (the model is shown to
break it). One rejection rejects; without one, any hold holds. Nothing passes for want of a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from scipy.stats import binomtest

from evaluation.conclusion import LEVEL, conclude
from evaluation.systems import BASELINE
from evaluation.texts import load_texts
from export.versions.evidence import Evidence, Missing
from reward.settings.promotion import PromotionSettings

LEAST_TIMED = 20  # requests; of fewer there is no p95
Outcome = Literal["pass", "hold", "reject", "off"]
Verdict = Literal["PROMOTE", "HOLD", "REJECT", "ROLLBACK"]


@dataclass(frozen=True)
class Finding:
    """What one rule found, with its reason in one sentence. `floor`: a safety floor, which cannot be forced."""

    rule: str
    outcome: Outcome
    reason: str
    floor: bool = False

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """A model and what is known about it.

    Args:
        system: its name in the evaluation.
        champion: the champion's name in the evaluation; None without a champion, or where it is this model.
        champion_missing: there is another champion, and the evaluation did not compare with it.
        alarms: of `reward.audit` about the training run; None where it could not be asked.
        audit_missing: why it could not.
    """

    system: str
    champion: str | None = None
    champion_missing: bool = False
    alarms: Sequence[str] | None = None
    audit_missing: str = "no training run is known"


Check = Callable[[], tuple[Outcome, str]]


def check_rules(evidence: Evidence, candidate: Candidate, settings: PromotionSettings) -> list[Finding]:
    """Check every rule, in a fixed order; a rule that is switched off says so."""
    return [_found(rule, check, floor) for rule, check, floor in _rules(evidence, candidate, settings)]


def verdict_of(findings: Sequence[Finding], *, is_champion: bool = False) -> Verdict:
    """Return the verdict. A champion that is rejected is to be rolled back."""
    outcomes = {finding.outcome for finding in findings}
    if "reject" in outcomes:
        return "ROLLBACK" if is_champion else "REJECT"
    return "HOLD" if "hold" in outcomes else "PROMOTE"


def _found(rule: str, check: Check | None, floor: bool) -> Finding:
    if check is None:
        return Finding(rule, "off", "the tenant's settings switch this rule off", floor)
    try:
        outcome, reason = check()
    except Missing as missing:
        return Finding(rule, "hold", str(missing), floor)
    return Finding(rule, outcome, reason, floor)


def _rules(
    evidence: Evidence, candidate: Candidate, settings: PromotionSettings
) -> Iterator[tuple[str, Check | None, bool]]:
    """Yield each rule's name, its check (None: off) and whether it is a safety floor."""
    system = candidate.system
    yield "queries", partial(_queries, evidence, system, settings), False
    if candidate.champion_missing:
        yield "champion", _champion_missing, False
    for opponent in (BASELINE, *filter(None, [candidate.champion])):
        of_pair = partial(_off_or, evidence, system, opponent)
        yield f"win_rate against {opponent}", of_pair(_win_rate, settings.win_rate), False
        judged = partial(_judge_win_rate, unjudged=settings.abstained_share)
        yield f"judge_win_rate against {opponent}", of_pair(judged, settings.judge_win_rate), False
        losses = partial(_slices, smallest=settings.smallest_slice)
        yield f"slices against {opponent}", of_pair(losses, settings.slice_loss), False
    for dimension, least in settings.safety.judge.items():
        yield f"safety: {dimension}", partial(_judge_floor, evidence, system, dimension, least), True
    for name, least in settings.safety.slices.items():
        yield f"safety: slice {name}", partial(_slice_floor, evidence, system, name, least), True
    harmed = settings.harmed_share
    yield "harmed_share", None if harmed is None else partial(_harmed, evidence, system, harmed), False
    limits = {
        "latency_p50_ms": (settings.latency_p50_ms, ("latency_ms", system, "p50")),
        "latency_p95_ms": (settings.latency_p95_ms, ("latency_ms", system, "p95")),
        "cost_per_1000_usd": (settings.cost_per_1000_usd, ("cost_per_1000", system, "usd")),
    }
    for rule, (limit, path) in limits.items():
        timed = path[:-1] if path[0] == "latency_ms" else None
        yield rule, None if limit is None else partial(_at_most, evidence, path, limit, timed), False
    yield "audit", partial(_audit, candidate) if settings.audit else None, False
    yield "retriever", partial(_retriever, evidence, system) if settings.same_retriever else None, False


def _off_or(evidence: Evidence, a: str, b: str, check: Callable[..., Any], limit: float | None) -> Check | None:
    return None if limit is None else partial(check, evidence, a, b, limit)


def _queries(evidence: Evidence, system: str, settings: PromotionSettings) -> tuple[Outcome, str]:
    counts = ("provenance", "counts")
    evaluated, abstained = evidence.count(*counts, "evaluated"), evidence.count(*counts, "abstained")
    compared = evidence.compared(system)
    share = abstained / (evaluated + abstained) if evaluated + abstained else 1.0
    reason = f"{compared} queries compared, {abstained} left out because a service failed"
    if compared > evaluated:
        raise Missing(f"the evaluation contradicts itself: {compared} queries compared of {evaluated} evaluated")
    if compared < settings.queries:
        return "hold", f"{reason}; {settings.queries} are asked for"
    if share > settings.abstained_share:
        return "hold", f"{reason}: {share:.1%} of them, at most {settings.abstained_share:.1%} may be"
    return "pass", reason


def _champion_missing() -> tuple[Outcome, str]:
    return "hold", "the evaluation does not compare with the champion: add it with --model champion=FOLDER"


def _win_rate(evidence: Evidence, a: str, b: str, above: float) -> tuple[Outcome, str]:
    """Judge as the report does: bootstrap interval, exact sign test and mean metric must agree."""
    entry = evidence.pair("win_rate", a=a, b=b)
    if (counted := sum(_sides(entry, f"win_rate.{a}_vs_{b}"))) != (compared := evidence.compared(a)):
        raise Missing(f"the evaluation contradicts itself: win_rate.{a}_vs_{b} counts {counted} of {compared} queries")
    try:
        conclusion = conclude(a, b, entry, load_texts("report", "en"))
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        raise Missing(f"the evaluation's win_rate.{a}_vs_{b} is incomplete") from None
    if conclusion.outcome == "loss":
        return "reject", conclusion.sentence
    if conclusion.outcome != "win":
        return "hold", conclusion.sentence
    low = entry["ci95"][0]
    if low <= above:
        return "hold", f"{conclusion.sentence} The interval must lie above {above:.0%}."
    return "pass", conclusion.sentence


def _sides(entry: Mapping[str, Any], name: str) -> list[int]:
    """Return wins, ties and losses of a comparison."""
    return [Evidence({name: entry}).count(name, side) for side in ("win", "tie", "loss")]


def _judge_win_rate(evidence: Evidence, a: str, b: str, above: float, *, unjudged: float) -> tuple[Outcome, str]:
    """Judge by the corrected interval; without human labels by the raw one, which must agree with the sign test."""
    entry = Evidence(evidence.pair("judge", "win_rate", a=a, b=b))
    if evidence.at("judge", "forced"):
        return "hold", "the judge of the evaluation is the one that trained the model: ask another"
    win, tie, loss = (entry.count(side) for side in ("win", "tie", "loss"))
    compared = evidence.compared(a)
    if win + tie + loss < compared * (1 - unjudged):
        return "hold", f"the judge compared {win + tie + loss} of {compared} queries: too many verdicts failed"
    if entry.has("corrected"):
        low, high = entry.interval("corrected", "ci95")
        kind, clear = "corrected by human labels", True
    else:
        if win + loss == 0:
            return "hold", f"the judge prefers neither {a} nor {b} on any query"
        low, high = entry.interval("ci95")
        kind, clear = "not corrected: no human labels", binomtest(win, win + loss).pvalue < LEVEL
    reason = f"the judge prefers {a} on {win} and {b} on {loss} queries: 95 % interval {low:.1%} to {high:.1%} ({kind})"
    if clear and high < 0.5:
        return "reject", reason
    if clear and low > above:
        return "pass", reason
    return "hold", f"{reason}; it must lie above {above:.0%}"


def _slices(evidence: Evidence, a: str, b: str, loss: float, *, smallest: int) -> tuple[Outcome, str]:
    """Hold each slice's difference to `loss`; a small slice can reject and is too small to hold."""
    names = sorted(evidence.mapping("slices"))
    if not names:
        return "hold", "the evaluation has no slices"
    worse, open_, small = [], [], []
    for name in names:
        entry = evidence.pair("slice_win_rate", name, a=a, b=b)
        figures = Evidence({"slice_win_rate": {name: entry}})
        at = ("slice_win_rate", name)
        queries = sum(_sides(entry, f"slice_win_rate.{name}.{a}_vs_{b}"))
        metric = next((key for key in figures.mapping(*at, "difference") if key != "ci95"), evidence.headline)
        change = figures.number(*at, "difference", metric)
        low, high = figures.interval(*at, "difference", "ci95")
        shown = f"{name} {change:+.3f} ({low:+.3f} to {high:+.3f}, {queries} queries)"
        # A handful of queries that all go one way has an interval of no width: the sign test must agree.
        if change < -loss and high < 0 and figures.number(*at, "sign_p") < LEVEL:
            worse.append(shown)
        elif queries < smallest:
            small.append(name)
        elif low < -loss:
            open_.append(shown)
    note = f"; under {smallest} queries, too few to decide: {', '.join(small)}" if small else ""
    if worse:
        return "reject", f"{a} loses more than {loss:g} against {b} on: {'; '.join(worse)}{note}"
    if open_:
        return "hold", f"{a} may lose more than {loss:g} against {b} on: {'; '.join(open_)}{note}"
    return "pass", f"no slice of {len(names)} loses more than {loss:g} against {b}{note}"


def _judge_floor(evidence: Evidence, system: str, dimension: str, least: float) -> tuple[Outcome, str]:
    at = ("judge", "systems", system)
    mean, (low, _) = evidence.number(*at, dimension), evidence.interval(*at, "ci95", dimension)
    return _at_least(f"the judge's {dimension}", mean, low, least)


def _slice_floor(evidence: Evidence, system: str, name: str, least: float) -> tuple[Outcome, str]:
    at, metric = ("slices", name, system), evidence.headline
    mean, (low, _) = evidence.number(*at, metric), evidence.interval(*at, "ci95", metric)
    return _at_least(f"{metric} on {name}", mean, low, least)


def _at_least(what: str, mean: float, low: float, least: float) -> tuple[Outcome, str]:
    """A floor: a mean below it rejects, an interval that reaches below it holds."""
    reason = f"{what} is {mean:.3f} (lower end {low:.3f}), the floor {least:g}"
    return "reject" if mean < least else "hold" if low < least else "pass", reason


def _harmed(evidence: Evidence, system: str, most: float) -> tuple[Outcome, str]:
    share, (low, high) = evidence.number("harmed", system, "share"), evidence.interval("harmed", system, "ci95")
    reason = f"{share:.1%} of the queries do worse than as typed ({low:.1%} to {high:.1%}), at most {most:.1%} may"
    return "reject" if low > most else "hold" if high > most else "pass", reason


def _at_most(
    evidence: Evidence, path: tuple[str, ...], most: float, timed: tuple[str, ...] | None = None
) -> tuple[Outcome, str]:
    """Hold a measurement to a limit.

    Args:
        timed: where a latency stands; it counts from `LEAST_TIMED` requests on.
    """
    value = evidence.measured(*path)
    if timed is not None and (requests := evidence.count(*timed, "n")) < LEAST_TIMED:
        return "hold", f"{value:g}, of {requests} requests: {LEAST_TIMED} are asked for"
    return "pass" if value <= most else "reject", f"{value:g}, at most {most:g}"


def _audit(candidate: Candidate) -> tuple[Outcome, str]:
    if candidate.alarms is None:
        return "hold", f"no audit: {candidate.audit_missing}"
    if candidate.alarms:
        return "reject", f"reward.audit raises {', '.join(candidate.alarms)}"
    return "pass", "reward.audit is silent"


def _retriever(evidence: Evidence, system: str) -> tuple[Outcome, str]:
    """Hold the retriever to what the training recorded of it. A changed one does not show that the model is worse; a
    knowledge base's name and a reranker alone do not show that it is the same."""
    at = ("provenance", "retriever")
    fingerprint = evidence.at(*at, "fingerprint")
    training = evidence.mapping(*at, "training", system)
    changed = evidence.at(*at, "training", system, "changed")
    if not isinstance(changed, list):
        raise Missing(f"the evaluation has no list at {'.'.join(at)}.training.{system}.changed but {changed!r}")
    if changed:
        return "hold", f"the retriever is not the one of the training: {'; '.join(map(str, changed))}"
    if training.get("asked") is False:
        return "pass", "the training asked no retriever"
    if not training.get("index") and not training.get("kb_version"):
        return "hold", (
            "the training recorded nothing that identifies its knowledge base: the service describes no index at "
            "/healthz, and the tenant's rag.kb_version was empty"
        )
    return "pass", f"the retriever is the one of the training ({fingerprint})"
