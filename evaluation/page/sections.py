"""What each section of the report shows, out of a run's files, any part of which may be missing. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.conclusion import Conclusion, conclude
from evaluation.metrics import TOP1
from evaluation.systems import BASELINE, DESCRIPTION, ORIGINAL
from evaluation.texts import Texts

FIXED = (ORIGINAL, DESCRIPTION, BASELINE)
JUDGE_DIMENSIONS = ("rewrite_quality", "domain_fit", "intent_kept", "retrievability", "overall")
_SHOWN_HARMED, _SHOWN_REASONS = 10, 3
_NOTHING = "–"


class Wording:
    """Names and numbers as the page writes them. A number that is missing or not finite becomes a dash."""

    def __init__(self, texts: Texts):
        self._texts = texts

    def label(self, system: str) -> str:
        """Return the name that the page shows for a system."""
        return self._named("system", system)

    def phrase(self, system: str) -> str:
        """Return the name of a system within a sentence."""
        return self._named("phrase", system)

    def metric(self, name: str) -> str:
        return self._named("metric", name)

    def gate(self, reason: str) -> str:
        return self._named("gate", reason)

    def rule(self, name: str) -> str:
        return self._named("harmed.rule", name)

    def number(self, value: Any, digits: int = 3) -> str:
        return f"{value:.{digits}f}" if is_number(value) else _NOTHING

    def percent(self, value: Any, digits: int = 1) -> str:
        return f"{100 * value:.{digits}f}\u00a0%" if is_number(value) else _NOTHING

    def p_value(self, value: Any) -> str:
        if not is_number(value):
            return _NOTHING
        return "< 0.001" if value < 0.001 else f"= {value:.3f}"

    def target(self, metric: str, value: Any) -> str:
        """Write a value of the target table in the unit of its metric."""
        if not is_number(value):
            return _NOTHING
        if metric == "top1_accuracy":
            return self.percent(value)
        if metric == "latency_ms":
            return f"{value:.0f}\u00a0ms"
        return f"${value:.2f}" if metric == "usd_per_1000" else f"{value:.2f}"

    def interval(self, bounds: Any, *, digits: int = 3, percent: bool = False) -> str:
        if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(map(is_number, bounds)):
            return ""
        low, high = bounds
        first = f"{100 * low:.1f}" if percent else self.number(low, digits)
        return f"{first}–{self.percent(high) if percent else self.number(high, digits)}"

    def _named(self, kind: str, name: str) -> str:
        key = f"{kind}.{name}"
        return self._texts(key) if key in self._texts else name


def without_nothing(node: Any) -> Any:
    """Return metrics without the keys that hold null, no finite number, or an interval with such an end: to a reader
    they are missing."""
    if isinstance(node, Mapping):
        return {key: without_nothing(value) for key, value in node.items() if not _is_nothing(value)}
    return [without_nothing(value) for value in node] if isinstance(node, list) else node


def _is_nothing(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(end, float) and not math.isfinite(end) for end in value)
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def metric_names(systems: Mapping[str, Mapping[str, Any]], texts: Texts) -> list[str]:
    """Name the metrics that the page knows. Recall in the first hit says nothing beside top-1 accuracy."""
    names = [n for n in dict.fromkeys(n for s in systems.values() for n in s) if f"metric.{n}" in texts]
    return [name for name in names if name != "recall@1" or "success@1" not in names]


def first_metric(names: Sequence[str]) -> str:
    """Return the metric that a reader understands without explanation."""
    return next((name for name in ("success@1", "recall@1", TOP1) if name in names), names[0])


def best_values(systems: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> dict[str, float]:
    """Return the best value of each metric."""
    values = {name: [s[name] for s in systems.values() if is_number(s.get(name))] for name in names}
    return {name: max(found) for name, found in values.items() if found}


def is_by_rank(metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether relevant passages were known, so that ranks decide."""
    systems = metrics.get("systems")
    if systems:
        return not any(TOP1 in summary for summary in systems.values())
    return any(side.get("rank") for row in rows for side in (row.get("systems") or {}).values())


def contest(systems: Sequence[str]) -> tuple[str, str] | None:
    """Return the most trained system, and what it has to beat; None where no two systems are there."""
    trained = [name for name in systems if name not in FIXED]
    challenger = next((name for name in ("rl", "sft") if name in trained), trained[-1] if trained else None)
    if challenger is None:
        return (BASELINE, ORIGINAL) if BASELINE in systems and ORIGINAL in systems else None
    return next(((challenger, other) for other in (BASELINE, ORIGINAL) if other in systems), None)


def headline(metrics: Mapping[str, Any], texts: Texts) -> Conclusion:
    """Conclude how the most trained system does against what it has to beat."""
    results, wording = metrics.get("win_rate") or {}, Wording(texts)
    trained = contest(list(metrics.get("systems") or {}))
    for pair in (*([trained] if trained else []), ("rl", BASELINE), ("sft", BASELINE), (BASELINE, ORIGINAL)):
        result, (a, b) = results.get("{}_vs_{}".format(*pair)), map(wording.phrase, pair)
        if result is not None:
            whole = _is_whole(result)
            return conclude(a, b, result, texts) if whole else Conclusion("none", texts("verdict.broken", a=a, b=b), "")
    return Conclusion("none", texts("verdict.none"), "")


def _is_whole(result: Mapping[str, Any]) -> bool:
    """Return whether a win rate has all that a conclusion is drawn from. Without a decided query it has no rate."""
    difference = result.get("difference") or {}
    if not {"win", "tie", "loss", "sign_p"} <= result.keys() or "ci95" not in difference or len(difference) < 2:
        return False
    return result["win"] + result["loss"] == 0 or {"rate", "ci95"} <= result.keys()


def target_table(targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the targets that somebody has set as a table: `systems`, its columns, and `rows`: metric → system → cell.

    `result` of a cell is met, missed, unknown, or "" for the baseline's.
    """

    def result(row: Mapping[str, Any]) -> str:
        if not is_number(row.get("measured")):
            return "unknown"
        return "met" if row.get("met") is True else "missed" if row.get("met") is False else ""

    rows: dict[str, dict[str, Any]] = {}
    for row in targets:
        if is_number(row.get("target")) and "metric" in row and "system" in row:
            rows.setdefault(row["metric"], {})[row["system"]] = {**row, "result": result(row)}
    return {"systems": list(dict.fromkeys(system for cells in rows.values() for system in cells)), "rows": rows}


def harmed_rows(metrics: Mapping[str, Any], headline_metric: str) -> list[dict[str, Any]]:
    """Return a row a system: share harmed, and the headline metric as it is, with an oracle and with each rule."""
    rows = []
    for name, part in (metrics.get("harmed") or {}).items():
        kept = (metrics.get("pass_through") or {}).get(name) or {}
        rows.append(
            {
                "system": name,
                "share": part.get("share"),
                "ci95": part.get("ci95"),
                "n": part.get("n"),
                "before": ((metrics.get("systems") or {}).get(name) or {}).get(headline_metric),
                "oracle": kept.get(headline_metric),
                "oracle_keeps": kept.get("share_kept"),
                "rules": {
                    rule: {"value": found.get(headline_metric), "keeps": found.get("share_kept")}
                    for rule, found in (kept.get("rules") or {}).items()
                },
            }
        )
    return rows


def harmed_queries(
    metrics: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], system: str
) -> tuple[int, list[Mapping[str, Any]]]:
    """Return how many queries a system harms, and the worst of them."""
    ids = ((metrics.get("harmed") or {}).get(system) or {}).get("sample_ids") or []
    by_id = {row.get("sample_id"): row for row in rows}
    return len(ids), [by_id[i] for i in ids if i in by_id][:_SHOWN_HARMED]


def speed_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row a system of which latency, tokens or cost was measured."""
    parts = {name: metrics.get(name) or {} for name in ("latency_ms", "tokens", "cost_per_1000")}
    rows = []
    for system in dict.fromkeys(name for part in parts.values() for name in part):
        own = {name: part.get(system) or {} for name, part in parts.items()}
        if any(own.values()):
            rows.append({"system": system, **own["latency_ms"], **own["tokens"], **own["cost_per_1000"]})
    return rows


def slice_order(slices: Mapping[str, Any]) -> list[str]:
    """Put the baseline's systematic errors first and unseen wordings last: the page explains these two."""
    order = {"systematic": -1, "unseen_wording": 1}
    return sorted(slices, key=lambda name: (order.get(name, 0), name))


def gate_rows(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the shares of gated rewrites by reason, of abstained and of lost ones, in the first and the last tenth of
    the steps; a share that was never above 0 is left out. A step that names no such share had none."""
    steps = [line for line in log if is_number(line.get("gated")) or is_number(line.get("abstained"))]
    if not steps:
        return []
    tenth = max(1, len(steps) // 10)

    def share(name: str, part: Sequence[Mapping[str, Any]]) -> float:
        return sum(float(line[name]) for line in part if is_number(line.get(name))) / len(part)

    reasons = sorted({key for line in steps for key in line if key.startswith("gated/")})
    reasons.sort(key=lambda name: -share(name, steps))
    rows = [
        (name, share(name, steps[:tenth]), share(name, steps[-tenth:])) for name in ("gated", *reasons, "abstained")
    ]
    logged = {name for name in ("gated", *reasons, "abstained") if share(name, steps) > 0}
    return [{"name": name, "first": first, "last": last} for name, first, last in rows if name in logged]


def graded_dimensions(judge: Mapping[str, Any]) -> list[str]:
    """Name the dimensions that the judge has graded."""
    graded = [summary for summary in (judge.get("systems") or {}).values() if summary]
    return [name for name in JUDGE_DIMENSIONS if any(is_number(summary.get(name)) for summary in graded)]


def judges_in_training(judge: Mapping[str, Any], texts: Texts) -> str:
    """Write which judge each model was trained with, as far as its run recorded one."""
    trained = judge.get("trained_with") or {}
    if not isinstance(trained, Mapping):
        return str(trained)
    wording = Wording(texts)
    told = [f"{wording.label(model)}: {name}" for model, name in trained.items() if name]
    return texts("measured.comma").join(told) or texts("judge.no_training")


def reasons(counts: Mapping[str, int]) -> str:
    """Write the three most frequent reasons why queries were left out."""
    frequent = sorted(counts.items(), key=lambda item: -item[1])
    told = "; ".join(f"{n} × {reason}" for reason, n in frequent[:_SHOWN_REASONS])
    return f"{told}; …" if len(frequent) > _SHOWN_REASONS else told


def token_limits(provenance: Mapping[str, Any], texts: Texts) -> str:
    """Write each system's limit of new tokens, and the share of its rewrites that ended there."""
    wording, cut = Wording(texts), provenance.get("cut") or {}
    return texts("measured.comma").join(
        texts("measured.limit", system=wording.label(name), limit=limit, cut=wording.percent(cut.get(name)))
        for name, limit in (provenance.get("max_new_tokens") or {}).items()
    )
