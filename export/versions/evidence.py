"""`metrics.json` of an evaluation, read so that what it lacks has a name and is never taken for a number."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.comparison import BY_RANK, BY_TOP1
from evaluation.metrics import TOP1
from evaluation.summary import METRICS_FILE
from reward.records.files import BadInput

HEADLINE = "mrr@10"


class Missing(Exception):
    """A figure that the evaluation does not have: one line naming it."""


class Evidence:
    """The figures of one evaluation. Every reading method raises `Missing` where there is no such figure."""

    def __init__(self, metrics: Mapping[str, Any]):
        self._metrics = metrics

    def at(self, *path: str) -> Any:
        """Return what is at `path`, keys from the top."""
        value: Any = self._metrics
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            raise Missing(f"the evaluation has no {'.'.join(path)}")
        return value

    def has(self, *path: str) -> bool:
        """Return whether there is anything at `path`."""
        try:
            return self.at(*path) is not None
        except Missing:
            return False

    def number(self, *path: str) -> float:
        return _number(self.at(*path), path)

    def count(self, *path: str) -> int:
        """Return a whole number, 0 or more."""
        value = self.number(*path)
        if value < 0 or value != int(value):
            raise Missing(f"the evaluation has no count at {'.'.join(path)} but {value:g}")
        return int(value)

    def measured(self, *path: str) -> float:
        """Return a number, 0 or more."""
        if (value := self.number(*path)) < 0:
            raise Missing(f"the evaluation has no measurement at {'.'.join(path)} but {value:g}")
        return value

    def compared(self, system: str) -> int:
        """Return how many queries decide about a system: those of the held-out slices are not among them."""
        return self.count("systems", system, "n")

    def interval(self, *path: str) -> tuple[float, float]:
        """Return a 95 % interval (low, high)."""
        value = self.at(*path)
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise Missing(f"the evaluation has no interval at {'.'.join(path)}")
        low, high = (_number(end, path) for end in value)
        if low > high:
            raise Missing(f"the interval at {'.'.join(path)} runs from {low:g} to {high:g}")
        return low, high

    def mapping(self, *path: str) -> Mapping[str, Any]:
        value = self.at(*path)
        if not isinstance(value, Mapping):
            raise Missing(f"the evaluation has no {'.'.join(path)}")
        return value

    def pair(self, *path: str, a: str, b: str) -> dict[str, Any]:
        """Return the entry `<a>_vs_<b>` at `path`, or the opposite one seen from the other side."""
        entries = self.mapping(*path)
        name, opposite = f"{a}_vs_{b}", f"{b}_vs_{a}"
        if isinstance(entry := entries.get(name), Mapping):
            return dict(entry)
        if isinstance(entry := entries.get(opposite), Mapping):
            try:
                return _turned(entry)
            except TypeError:
                raise Missing(f"the evaluation's {'.'.join((*path, opposite))} is incomplete") from None
        raise Missing(f"the evaluation has no {'.'.join((*path, name))}")

    def system_of(self, model_sha256: str) -> str | None:
        """Return the name under which the model with that hash was compared; None when it was not."""
        models = self._metrics.get("provenance", {}).get("models", {})
        return next((name for name, model in models.items() if model.get("sha256") == model_sha256), None)

    @property
    def headline(self) -> str:
        """The metric that decides: MRR@10 where relevant passages are known, else the score of the first hit."""
        judged_by = self.at("provenance", "judged_by")
        if judged_by not in (metrics := {BY_RANK: HEADLINE, BY_TOP1: TOP1}):
            raise Missing(f"the evaluation has no provenance.judged_by that is known but {judged_by!r}")
        return metrics[judged_by]


def read_evidence(run: Path) -> tuple[Evidence, str]:
    """Read `metrics.json` of the folder `run`. Returns it and its SHA-256.

    Raises:
        BadInput: there is none, or it is no evaluation.
    """
    path = run / METRICS_FILE
    if not path.is_file():
        raise BadInput(f"{path}: no such file (python -m evaluation.compare writes it)")
    try:
        content = path.read_bytes()
        metrics = json.loads(content)
        models = metrics["provenance"]["models"]
        if not all(isinstance(model["sha256"], str) for model in models.values()):
            raise TypeError
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({getattr(error, 'msg', error)})") from None
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{path}: names no models under provenance.models; not written by evaluation.compare") from None
    return Evidence(metrics), hashlib.sha256(content).hexdigest()


def _number(value: Any, path: tuple[str, ...]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Missing(f"the evaluation has no number at {'.'.join(path)} but {value!r}")
    return float(value)


def _turned(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a comparison of a with b as one of b with a."""
    turned = {**entry, **_other_share(entry), "win": entry.get("loss"), "loss": entry.get("win")}
    if isinstance(corrected := entry.get("corrected"), Mapping):
        turned["corrected"] = {**corrected, **_other_share(corrected)}
    if isinstance(difference := entry.get("difference"), Mapping):
        turned["difference"] = {
            name: [-end for end in reversed(value)] if name == "ci95" else -value for name, value in difference.items()
        }
    return turned


def _other_share(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rate` and `ci95` of the other side; what is None stays so."""
    rate, interval = entry.get("rate"), entry.get("ci95")
    return {
        "rate": None if rate is None else 1 - rate,
        "ci95": None if interval is None else [1 - end for end in reversed(interval)],
    }
