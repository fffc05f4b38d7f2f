"""The rule reward on recorded expansions and on outputs made to please it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.expansion_runs.outputs import Output, neighbours, read_outputs, read_recorded
from reward.expansion.parser import parse
from reward.expansion.rules import Preset, score

PRESETS: tuple[Preset, ...] = ("rules-v1", "rules-v2")
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
NEIGHBOURS = 200


def measure_rules(file: Path, seed: int) -> dict[str, Any]:
    """Score everything by both presets; say how well each ranks good expansions above the others.

    `per_second` is per second of CPU time of this process, parsing and scoring by `rules-v2`.
    """
    recorded = read_recorded(file)
    outputs = [one.output for one in recorded]
    parts = {part: [one.output for one in recorded if one.part == part] for part in ("good", "templated", "one kind")}
    good = parts["good"]
    adversarial, faithful = read_outputs("adversarial"), read_outputs("faithful_zh")
    made = list(neighbours(good, NEIGHBOURS, seed))
    expansions = [parse(one.text) for one in outputs]

    found: dict[str, Any] = {
        "rows": len(outputs),
        **{part: len(of) for part, of in parts.items()},
        "adversarial": len(adversarial),
        "parse_rate": sum(one.is_valid for one in expansions) / len(expansions),
    }
    started = time.process_time()
    for one in outputs:
        score(one.query, parse(one.text), "rules-v2")
    found["per_second"] = round(len(outputs) / (time.process_time() - started))
    for preset in PRESETS:
        name = preset.removeprefix("rules-")
        of_good, of_adversarial = _totals(good, preset), _totals(adversarial, preset)
        of_faithful = _totals(faithful, preset)
        found[f"auc_{name}"] = _auc(of_good, of_adversarial)
        found[f"auc_{name}_zh"] = _auc(of_faithful, of_adversarial)
        found[f"distribution_{name}"] = {
            "all rows": _quantiles(_totals(outputs, preset)),
            **{part: _quantiles(_totals(of, preset)) for part, of in parts.items() if of},
            "faithful Chinese": _quantiles(of_faithful),
            "adversarial": _quantiles(of_adversarial),
            **_by_kind(adversarial, of_adversarial),
        }
        of_made = dict(zip(map(id, made), _totals(made, preset), strict=True))
        kinds = dict.fromkeys(one.kind for one in made)
        found[f"auc_{name}_neighbours"] = {
            kind: _auc(of_good, [of_made[id(one)] for one in made if one.kind == kind]) for kind in kinds
        }
    return found


def _totals(outputs: Sequence[Output], preset: Preset) -> list[float]:
    return [score(one.query, parse(one.text), preset, passages=one.passages).total for one in outputs]


def _auc(good: Sequence[float], others: Sequence[float]) -> float:
    """The probability that a good one has more than another, ties as half."""
    return round(float(roc_auc_score([1] * len(good) + [0] * len(others), [*good, *others])), 4)


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    cuts = np.percentile(values, QUANTILES)
    return {f"p{cut}": round(float(value), 3) for cut, value in zip(QUANTILES, cuts, strict=True)}


def _by_kind(outputs: Sequence[Output], totals: Sequence[float]) -> dict[str, dict[str, float]]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for one, total in zip(outputs, totals, strict=True):
        kinds[one.kind].append(total)
    return {kind: {"n": len(of), "mean": round(float(np.mean(of)), 3), "max": max(of)} for kind, of in kinds.items()}
