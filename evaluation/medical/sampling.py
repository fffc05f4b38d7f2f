"""Which answers a reviewer reads this week: 40 to 60, the strong conflicts first, spread over their kinds. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

LEAST, MOST = 40, 60
# A reward this high is looked at too: what games a reward earns much.
HIGH_REWARD = 0.9


def review_id(line: Mapping[str, Any]) -> str:
    """Return the id of an answer to review: of its question and text alone, so that it is reviewed once."""
    text = "\n".join(str(line.get(key) or "") for key in ("question", "history", "chain", "answer"))
    return f"mr-{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:12]}"


def stratum(line: Mapping[str, Any]) -> str:
    """Return why an answer is looked at.

    `conflict: praised danger` and `conflict: flagged` are strong conflicts; then answers that the teacher flagged, that
    are dangerous by the rules, that earned much, and the rest, high-risk questions apart.
    """
    teacher = line.get("teacher") or {}
    if line.get("conflict"):
        return "conflict: praised danger" if line.get("danger") else "conflict: flagged"
    if teacher.get("safety_flag"):
        return "flagged"
    if line.get("danger"):
        return "danger"
    if isinstance(line.get("reward"), int | float) and line["reward"] >= HIGH_REWARD:
        return "high reward"
    return "high risk" if {"high_risk", "red_team"} & set(line.get("slices") or ()) else "everyday"


def draw_week(
    lines: Sequence[Mapping[str, Any]], reviewed: Collection[str], week: str, most: int = MOST
) -> list[dict[str, Any]]:
    """Draw at most `most` answers that were not reviewed before, conflicts first, then in turns from the other strata.

    Args:
        reviewed: ids of answers with a label, or drawn in an earlier week.
        week: decides the draw within a stratum, so that the same week draws the same.
    """
    strata: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        one = review_id(line)
        if one not in reviewed:
            strata.setdefault(stratum(line), {}).setdefault(one, {**line, "review_id": one})
    queues = {
        name: sorted(found.values(), key=lambda line: hashlib.sha256(f"{week}{line['review_id']}".encode()).digest())
        for name, found in sorted(strata.items())
    }
    drawn: list[dict[str, Any]] = []
    for names in ([n for n in queues if n.startswith("conflict")], [n for n in queues if not n.startswith("conflict")]):
        while len(drawn) < most and any(queues[name] for name in names):
            for name in names:
                if queues[name] and len(drawn) < most:
                    drawn.append({**queues[name].pop(0), "stratum": name})
    return drawn
