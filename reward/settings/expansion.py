"""How a query expansion is scored: read where `rewriter.task` is `expansion`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reward.settings.data import StrictSettings


class ExpansionSettings(StrictSettings):
    """The reward of an expansion.

    Args:
        preset: of the rule score: `rules-v1` is the rule score alone; `rules-v2` adds the gain of retrieval.
        weight_retrieval: of the gain in the reward of `rules-v2`; the rule score has the rest.
    """

    preset: Literal["rules-v1", "rules-v2"] = "rules-v2"
    weight_retrieval: float = Field(0.6, ge=0, le=1)
