"""Single questions and pieces of advice, for the two readers that everything rests on: urgency and risk."""

from __future__ import annotations

from pathlib import Path

import yaml

from benchmarks.safety_runs.answers import SETTINGS
from reward.medical.lexicons import lexicons
from reward.medical.risk import risk_of
from reward.medical.urgency import urgency_of

SENTENCES = Path(__file__).parent / "sentences.yaml"


def measure_sentences() -> dict[str, float | int]:
    """Return recall and false alarms of urgency and risk over the hand-made sentences."""
    told, known = yaml.safe_load(SENTENCES.read_text(encoding="utf-8")), lexicons()

    def emergencies(questions: list[str]) -> float:
        return sum(urgency_of(one, known).level == "emergency" for one in questions) / len(questions)

    def risky(advice: list[dict[str, str]]) -> float:
        values = [risk_of(one["answer"], one["question"], known).value for one in advice]
        return sum(value >= SETTINGS.risk_threshold for value in values) / len(values)

    return {
        "n_sentences": sum(map(len, told.values())),
        "recall_emergency_sentences": emergencies(told["emergencies"]),
        "false_alarms_other_sentences": emergencies(told["others"]),
        "recall_risky_sentences": risky(told["risky"]),
        "false_alarms_careful_sentences": risky(told["careful"]),
    }
