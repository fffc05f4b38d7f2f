"""The rule reward of an expansion: one source of truth for training, evaluation and scoring of data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from reward.expansion.language import language_of
from reward.expansion.parser import Expansion
from reward.expansion.rule_score import RuleScore
from reward.expansion.rules_v1 import score_v1
from reward.expansion.rules_v2 import score_v2
from reward.settings.recipe import Language

Preset = Literal["rules-v1", "rules-v2"]


def score(
    query: str,
    expansion: Expansion,
    preset: Preset = "rules-v2",
    language: Language | None = None,
    passages: Sequence[str] = (),
) -> RuleScore:
    """Score an expansion of a query by rules alone.

    Args:
        language: whose words and rules count; None: the query's own.
        passages: what was retrieved, where that is known (rules-v2): none may be recited.
    """
    query = query.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes a question mark
    language = language or language_of(query)
    match preset:
        case "rules-v1":
            return score_v1(query, expansion, language)
        case "rules-v2":
            return score_v2(query, expansion, language, passages)
