"""Recall and false alarms of the rules on sets with silver labels (keywords, or none at all)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.safety_runs.answers import SETTINGS
from reward.medical.form import says_nothing
from reward.medical.harm import asks_for_harm, declines
from reward.medical.lexicons import lexicons
from reward.medical.risk import risk_of
from reward.medical.urgency import urgency_of
from reward.records.files import read_jsonl

EMERGENCIES, CRISES = "zh_med_emergency_silver", "zh_crisis_smile_silver"
HARMFUL, HARMLESS = "en_medsafetybench", "zh_cvalues_prompts"
SETS = (EMERGENCIES, CRISES, HARMFUL, HARMLESS)


@dataclass(frozen=True)
class Miss:
    """A text on which rule and label differ."""

    set: str
    id: str
    label: str
    rule: str
    text: str


def measure(folder: Path) -> tuple[dict[str, float | int], list[Miss]]:
    """Return the metrics of the sets that lie in a folder, and every text on which rule and label differ.

    Raises:
        BadInput: a set is there and cannot be read.
    """
    found: dict[str, float | int] = {}
    misses: list[Miss] = []
    for name, measured in ((EMERGENCIES, _emergencies), (CRISES, _crises), (HARMFUL, _harmful), (HARMLESS, _harmless)):
        path = folder / name / "prompts.jsonl"
        if path.is_file():
            metrics, missed = measured([row for _, row in read_jsonl(path)])
            found |= metrics
            misses += missed
    return found, misses


def _emergencies(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float | int], list[Miss]]:
    """Every row is labelled an emergency by a keyword, acute or not. Doctors' answers show the risk rule's alarms."""
    known = lexicons()
    texts = {row["id"]: f"{row['query']}\n{row['description']}" for row in rows}
    levels = {key: urgency_of(text, known).level for key, text in texts.items()}
    risky = [
        row["id"]
        for row in rows
        if risk_of(row["reference_answer"], texts[row["id"]], known).value >= SETTINGS.risk_threshold
    ]
    metrics = {
        "n_emergency": len(rows),
        "recall_emergency": _share(levels, lambda level: level == "emergency"),
        "recall_emergency_or_unclear": _share(levels, lambda level: level != "none"),
        "risky_doctor_answers": len(risky) / len(rows),
    }
    missed = [
        Miss(EMERGENCIES, key, "emergency", level, texts[key]) for key, level in levels.items() if level != "emergency"
    ]
    return metrics, missed


def _crises(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float | int], list[Miss]]:
    known = lexicons()
    texts = {row["id"]: row["query"] for row in rows}
    labelled = {row["id"]: bool(row["matched_keywords"]) for row in rows}
    levels = {key: urgency_of(text, known).level for key, text in texts.items()}
    marked = {key: level for key, level in levels.items() if labelled[key]}
    controls = {key: level for key, level in levels.items() if not labelled[key]}
    metrics = {
        "n_crisis": len(marked),
        "n_crisis_controls": len(controls),
        "recall_crisis": _share(marked, lambda level: level == "emergency"),
        "recall_crisis_or_unclear": _share(marked, lambda level: level != "none"),
        "false_alarms_crisis": _share(controls, lambda level: level == "emergency"),
    }
    missed = [Miss(CRISES, key, "crisis", level, texts[key]) for key, level in marked.items() if level != "emergency"]
    missed += [
        Miss(CRISES, key, "control", level, texts[key]) for key, level in controls.items() if level == "emergency"
    ]
    return metrics, missed


def _harmful(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float | int], list[Miss]]:
    """Harmful requests and safe responses."""
    known = lexicons()
    asked = {row["id"]: asks_for_harm(row["prompt"], known) for row in rows}
    alarms = [
        row
        for row in rows
        if risk_of(row["safe_response"], row["prompt"], known).value >= SETTINGS.risk_threshold
        or (asked[row["id"]] and not declines(row["safe_response"], known))
        or (says_nothing(row["safe_response"], known) and not asked[row["id"]])
    ]
    metrics = {
        "n_harmful": len(rows),
        "recall_harmful": _share(asked, bool),
        "false_alarms_safe_responses": len(alarms) / len(rows),
    }
    prompts = {row["id"]: row["prompt"] for row in rows}
    missed = [Miss(HARMFUL, key, "harmful", "none", prompts[key]) for key, hit in asked.items() if not hit]
    missed += [Miss(HARMFUL, row["id"], "safe response", "risky or refused", row["safe_response"]) for row in alarms]
    return metrics, missed


def _harmless(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, float | int], list[Miss]]:
    known = lexicons()
    texts = {row["id"]: row["prompt"] for row in rows}
    levels = {key: urgency_of(text, known).level for key, text in texts.items()}
    harmful = {key: asks_for_harm(text, known) for key, text in texts.items()}
    metrics = {
        "n_cvalues": len(rows),
        "false_alarms_cvalues": _share(levels, lambda level: level == "emergency"),
        "harmful_requests_cvalues": _share(harmful, bool),
    }
    missed = [
        Miss(HARMLESS, key, "no emergency", level, texts[key]) for key, level in levels.items() if level == "emergency"
    ]
    missed += [Miss(HARMLESS, key, "unlabelled", "harmful", texts[key]) for key, hit in harmful.items() if hit]
    return metrics, missed


def _share(values: dict[str, Any], holds: Callable[[Any], bool]) -> float:
    return sum(holds(value) for value in values.values()) / len(values)
