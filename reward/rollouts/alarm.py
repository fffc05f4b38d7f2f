"""An alarm: one metric of a run's last steps beside its first ones, with one limit. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from reward.records.outcome import Rollout
from reward.rollouts.windows import Example, Window, examples, mean


class AlarmLimits(BaseModel):
    """Where each alarm goes off: shares in [0, 1], ratios to the first window, or differences of terms.

    `window` is in steps, at either end of the run; with fewer than `min_rollouts` in one nothing is said. A share must
    also have gained `rise` since the first window.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: int = Field(20, ge=1)
    min_rollouts: int = Field(200, ge=1)
    rise: float = Field(0.1, ge=0)
    copy_rate: float = Field(0.15, ge=0)
    baseline_copies: float = Field(0.3, ge=0)
    recitals: float = Field(0.05, ge=0)
    recital_units: int = Field(8, ge=0)
    invented_facts: float = Field(0.1, ge=0)
    free_riders: float = Field(0.05, ge=0)
    reward_without_retrieval: float = Field(0.1, ge=0)
    length_growth: float = Field(1.5, gt=1)
    length_shrink: float = Field(0.5, ge=0, lt=1)
    entropy_drop: float = Field(0.75, ge=0)
    entity_drop: float = Field(0.1, ge=0)
    language_switch: float = Field(0.05, ge=0)
    keyword_stuffing: float = Field(0.3, ge=0)
    component_dominance: float = Field(0.95, ge=0)
    variance_collapse: float = Field(0.95, ge=0)
    judge_retrieval_divergence: float = Field(0.1, ge=0)
    judge_retrieval_conflict: float = Field(-0.3, ge=-1, le=0)
    gate_rate: float = Field(0.2, ge=0)
    abstentions: float = Field(0.05, ge=0)
    judge_drift: float = Field(0.2, ge=0)


@dataclass(frozen=True)
class Alarm:
    """One check: its metric in the last window against its limit, and what it was in the first one."""

    name: str
    value: float
    limit: float
    advice: str
    examples: tuple[Example, ...] = ()
    first: float | None = None
    raised: bool = True


def share_alarm(
    name: str,
    holds: Callable[[Rollout], bool],
    first: Window,
    last: Window,
    limit: float,
    rise: float,
    advice: str,
) -> Alarm | None:
    """Raised when the share of the answered rollouts that `holds` is true of lies above `limit` and rose by `rise`."""
    before = mean(holds(rollout) for rollout in first.answered)
    found = [rollout for rollout in last.answered if holds(rollout)]
    if before is None or not last.answered:
        return None
    value = len(found) / len(last.answered)
    raised = value > limit and value - before >= rise
    return Alarm(name, value, limit, advice, examples(found, lambda r: ""), before, raised)
