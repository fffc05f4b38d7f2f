"""Is the trained model better than the base, and has it forgotten anything? Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reranker.modelling.calibration import Platt
from reranker.training.validation import METRIC, interval

LARGEST_SHIFT = 1e-3  # of a score in [0, 1], between training and the written folder


@dataclass(frozen=True)
class Comparison:
    """Mean nDCG@10 of base and trained model over `queries`, their mean paired difference, its 95 % interval."""

    queries: int
    before: float
    after: float
    change: float
    low: float
    high: float

    def values(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def compare(before: NDArray[np.float64], after: NDArray[np.float64]) -> Comparison:
    change, low, high = interval(after - before)
    return Comparison(len(before), float(before.mean()), float(after.mean()), change, low, high)


@dataclass(frozen=True)
class Outcome:
    """`shift`: largest difference of a score, see `LARGEST_SHIFT`; `tolerance`: how much may be forgotten."""

    validation: Comparison
    forgetting: Comparison
    platt: Platt
    constant: bool
    shift: float
    tolerance: float

    @property
    def refusal(self) -> str:
        """Why the model is not exported, in one line; empty when it is."""
        val, old = self.validation, self.forgetting
        if self.constant:
            return "every passage of a query gets one and the same score"
        if val.change <= 0:
            return (
                f"not better than the base model on the validation set: {METRIC} {val.before:.4f} → {val.after:.4f} "
                f"({val.change:+.4f} [{val.low:+.4f}, {val.high:+.4f}], {val.queries} queries)"
            )
        if self.platt.slope <= 0:
            return "answers get lower scores than other passages on the validation set, on the whole"
        if old.change < -self.tolerance:
            return (
                f"worse than the base model on the forgetting set: {METRIC} {old.before:.4f} → {old.after:.4f} "
                f"({old.change:+.4f}, allowed -{self.tolerance:g}, {old.queries} queries)"
            )
        if self.shift > LARGEST_SHIFT:
            return f"the written folder's scores differ from the trained model's by up to {self.shift:.4f}"
        return ""

    def values(self) -> dict[str, Any]:
        return {
            "validation": self.validation.values(),
            "forgetting": self.forgetting.values(),
            "calibration": asdict(self.platt),
            "score_shift": self.shift,
            "refused": self.refusal,
        }
