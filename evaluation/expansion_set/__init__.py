"""The queries that expansions are evaluated on unless others are given: 32 in 8 categories, in each language."""

from __future__ import annotations

from pathlib import Path

import yaml

from data_prep.expansions.queries import Asked, of_categories
from reward.settings.recipe import Language


def built_in(language: Language) -> list[Asked]:
    """Return the queries of a language."""
    path = Path(__file__).with_name(f"{language}.yaml")
    return list(of_categories(yaml.safe_load(path.read_text(encoding="utf-8")), str(path)))
