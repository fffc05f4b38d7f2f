"""What the rules say of an expansion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reward.records.outcome import GateReason

Rating = Literal["excellent", "good", "acceptable", "poor", "failed"]
_RATINGS: tuple[tuple[float, Rating], ...] = ((0.80, "excellent"), (0.60, "good"), (0.40, "acceptable"), (0.20, "poor"))


@dataclass(frozen=True)
class RuleScore:
    """The score of an expansion, in [0, 1].

    Args:
        parts: what each rule gave, by name.
        deductions: what took from the score, one line each.
        gate: why the expansion is worthless, None where it is not; then `total` is 0.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    deductions: tuple[str, ...] = ()
    gate: GateReason | None = None

    @property
    def rating(self) -> Rating:
        """Return the word for the score: excellent from .80, good from .60, acceptable from .40, poor from .20."""
        return next((word for least, word in _RATINGS if self.total >= least), "failed")
