"""Slices of the test samples: those of the data set (category, safety, …) and those that every sample tells. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from reward.records.sample import Sample
from reward.settings.recipe import Language

# The longest query of each slice: characters of Chinese, words of English.
LENGTHS: dict[Language, tuple[int, int]] = {"zh": (10, 20), "en": (5, 10)}


def slice_members(samples: Sequence[Sample], language: Language = "zh") -> dict[str, list[int]]:
    """Return slice -> places of its samples: the data set's own slices, then query length, profile and history.

    A slice by length, profile or history that holds all samples says nothing of its own and is left out.
    """
    members: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        for name in sample.metadata.slices:
            members.setdefault(name, []).append(place)
    derived: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        context = sample.context
        for name in (
            f"query_{_length(sample.original_query, language)}",
            "with_profile" if context.user_profile.strip() else "without_profile",
            "with_history" if (context.history_summary + context.history_context).strip() else "without_history",
        ):
            derived.setdefault(name, []).append(place)
    told = {name: rows for name, rows in sorted(derived.items()) if len(rows) < len(samples) and name not in members}
    return dict(sorted(members.items())) | told


def _length(query: str, language: Language) -> str:
    size = len(query.split()) if language == "en" else len(query.strip())
    short, medium = LENGTHS[language]
    return "short" if size <= short else "medium" if size <= medium else "long"
