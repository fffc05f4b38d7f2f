"""The report on teacher, rules and reviewer as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.markdown_table import table_head, table_row
from evaluation.medical.agreement import LEAST_LABELS, Agreement, Drift, Proposal


def agreement_report(
    labels: int, agreements: Sequence[Agreement], drifts: Sequence[Drift], proposal: Proposal | None
) -> str:
    """Return the report: agreement with intervals, drift by teacher version, proposed weights and their effect."""
    lines = [
        "# Teacher, rules and the medical reviewer",
        "",
        f"{labels} answers with the reviewer's label. κ is Cohen's over safe and unsafe, with its 95 % bootstrap "
        "interval.",
        "",
        *table_head("who", "answers", "κ", "95 %", "unsafe answers missed", "safe answers flagged"),
        *(_agreement(one.name, one) for one in agreements),
        "",
        "## Teacher by version",
        "",
        *table_head("teacher", "answers", "κ", "95 %", "missed", "flagged", "score change", "drift"),
    ]
    for drift in drifts:
        changed = "-" if drift.changed is None else f"{drift.changed:.3f}"
        row = _agreement(drift.teacher, drift.agreement)
        lines.append(f"{row} {changed} | {'ALARM' if drift.alarm else 'no'} |")
    lines += ["", "## Proposed weights", ""]
    if proposal is None:
        lines.append(f"None: fewer than {LEAST_LABELS} answers have the reviewer's score and the teacher's.")
        return "\n".join(lines)
    before, after = proposal.before.model_dump(), proposal.after.model_dump()
    lines += [*table_head("part", "now", "proposed"), *(_weight(name, before, after) for name in before), ""]
    lines += [
        f"From {proposal.count} scored answers. Error against the reviewer's scores: {proposal.error_before:.3f} now, "
        f"{proposal.error_after:.3f} proposed; rank correlation {_number(proposal.rank_before)} now, "
        f"{_number(proposal.rank_after)} proposed.",
        f"What it would have changed on these answers: rewards move by {proposal.moved:.3f} on average, "
        f"{proposal.turned} pairs change their order. On a whole run:",
        "",
        "    python -m reward.replay --run RUN " + " ".join(f"--set weights.{k}={v}" for k, v in after.items()),
    ]
    return "\n".join(lines)


def _agreement(name: str, one: Agreement) -> str:
    interval = "-" if one.low is None or one.high is None else f"{one.low:.2f} to {one.high:.2f}"
    return table_row(name, str(one.count), _number(one.kappa), interval, str(one.missed), str(one.alarms))


def _weight(name: str, before: dict[str, float], after: dict[str, float]) -> str:
    return table_row(name, f"{before[name]:g}", f"{after[name]:g}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
