"""What a tenant wants of its rewriters: the goals that an evaluation is held against."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reward.settings.data import StrictSettings


class StageTargets(StrictSettings):
    """One metric's value: what the deployed baseline is said to do, and what the model must reach after each stage.
    `None`: no target."""

    baseline: float | None = Field(None, ge=0)
    sft: float | None = Field(None, ge=0)
    rl: float | None = Field(None, ge=0)


class TargetSettings(StrictSettings):
    """The targets by metric.

    Args:
        judge_score: 综合得分, of 5.
        top1_accuracy: share of queries whose first hit is relevant.
        latency_ms: median of one rewrite.
        usd_per_1000: US dollars for 1000 rewrites.
    """

    judge_score: StageTargets = StageTargets(baseline=4.2, sft=3.8, rl=4.5)
    top1_accuracy: StageTargets = StageTargets(baseline=0.78, sft=0.72, rl=0.85)
    latency_ms: StageTargets = StageTargets(baseline=850, sft=320, rl=350)
    usd_per_1000: StageTargets = StageTargets(baseline=2.50, sft=0.80, rl=0.85)

    @model_validator(mode="after")
    def _on_their_scales(self) -> Self:
        for name, most in (("judge_score", 5), ("top1_accuracy", 1)):
            for stage, value in getattr(self, name):
                if value is not None and value > most:
                    raise ValueError(f"{name}.{stage}: {value:g} is more than {most}")
        return self
