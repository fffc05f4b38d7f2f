"""The tenant's targets, beside what was measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.systems import BASELINE
from reward.settings.targets import TargetSettings

SFT, RL = "sft", "rl"
# metric -> whether more is better
HIGHER_IS_BETTER = {"judge_score": True, "top1_accuracy": True, "latency_ms": False, "usd_per_1000": False}


def stage_of(model: str) -> str:
    """Return whose targets a model is held to: `sft` by its name, else those of the last stage."""
    return SFT if model.startswith(SFT) else RL


def compare_with_targets(
    targets: TargetSettings, models: Sequence[str], metrics: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row for each target: `metric`, `system`, `target`, `measured` and `met`, None where not measured.

    Args:
        models: the compared models. A stage without a model has rows of its own, with nothing measured.
        metrics: `systems`, `judge`, `latency_ms` and `cost_per_1000` of `metrics.json`.

    The baseline's targets are what it is said to do: it cannot miss them, `met` is None.
    """
    systems = [BASELINE, *(stage for stage in (SFT, RL) if stage not in map(stage_of, models)), *models]
    rows = []
    for metric, more in HIGHER_IS_BETTER.items():
        for system in systems:
            stage = BASELINE if system == BASELINE else stage_of(system)
            target = getattr(getattr(targets, metric), stage)
            measured = _measured(metric, system, metrics)
            met = None
            if measured is not None and target is not None and system != BASELINE:
                met = measured >= target if more else measured <= target
            rows.append({"metric": metric, "system": system, "target": target, "measured": measured, "met": met})
    return rows


def _measured(metric: str, system: str, metrics: Mapping[str, Any]) -> float | None:
    judged = (metrics.get("judge") or {}).get("systems") or {}
    where: dict[str, tuple[Mapping[str, Any] | None, str]] = {
        "judge_score": (judged.get(system), "overall"),
        "top1_accuracy": (metrics["systems"].get(system), "success@1"),
        "latency_ms": (metrics["latency_ms"].get(system), "p50"),
        "usd_per_1000": (metrics["cost_per_1000"].get(system), "usd"),
    }
    found, key = where[metric]
    return found.get(key) if found else None
