"""The rule reward over a whole set: the same rules as training and evaluation. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from reward.expansion.parser import Expansion
from reward.expansion.rule_score import Rating, RuleScore
from reward.expansion.rules import Preset, score
from reward.settings.recipe import Language


@dataclass(frozen=True)
class Scored:
    """An expansion of a query with its score by rules."""

    id: str
    query: str
    category: str
    expansion: Expansion
    rules: RuleScore

    def to_record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "query": self.query,
            "category": self.category,
            "expansion": self.expansion.to_text(),
            "is_valid": self.expansion.is_valid,
            "score": round(self.rules.total, 6),
            "rating": self.rules.rating,
            "parts": dict(self.rules.parts),
            "deductions": list(self.rules.deductions),
        }


def score_all(
    rows: Iterable[tuple[str, str, str, Expansion]], preset: Preset, language: Language | None = None
) -> list[Scored]:
    """Score rows of id, query, category and expansion."""
    return [
        Scored(name, query, category, expansion, score(query, expansion, preset, language))
        for name, query, category, expansion in rows
    ]


def summary(scored: Sequence[Scored]) -> dict[str, Any]:
    """Return count, share of valid format, mean and quartiles of the scores, and the shares of the ratings."""
    if not scored:
        return {"count": 0}
    totals = np.array([one.rules.total for one in scored])
    ratings = Counter(one.rules.rating for one in scored)
    low, middle, high = np.percentile(totals, (25, 50, 75))
    return {
        "count": len(scored),
        "valid": round(sum(one.expansion.is_valid for one in scored) / len(scored), 4),
        "mean": round(float(totals.mean()), 4),
        "p25": round(float(low), 4),
        "p50": round(float(middle), 4),
        "p75": round(float(high), 4),
        "ratings": {rating: round(ratings[rating] / len(scored), 4) for rating in get_args(Rating)},
    }


def common_deductions(scored: Iterable[Scored]) -> dict[str, int]:
    """Return of how many expansions each rule took something: the first word of a deduction names the rule."""
    rules = ({deduction.split()[0].rstrip(":") for deduction in one.rules.deductions} for one in scored)
    return dict(Counter(rule for found in rules for rule in found).most_common())
