"""Adaptive shaping of formula v1: the base reward of a training rollout times a factor that depends on the step."""

from __future__ import annotations

from collections import deque

from reward.records.outcome import Scored
from reward.rewrite import formulas

RECENT = 100  # base rewards whose mean `formulas.shaping_factor` compares with


class AdaptiveShaping:
    """Keeps the last base rewards in the order in which rollouts were scored."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)

    def shape(self, scored: Scored, step: int) -> Scored:
        """Shape one reward, itself counted among the last ones."""
        self._recent.append(scored.reward)
        mean = sum(self._recent) / len(self._recent)
        return formulas.shape(scored, formulas.shaping_factor(step, scored.reward, mean))
