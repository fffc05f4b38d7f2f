"""What the pages of this package say, in Chinese and English: one YAML file a page and language."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Page = Literal["demo", "medical", "report"]
Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


class Texts:
    """The texts of one page in one language.

    Args:
        texts: dotted name → text; `{name}` in a text is a place to fill.
    """

    def __init__(self, language: Language, texts: Mapping[str, str]):
        self.language, self._texts = language, texts

    def __call__(self, name: str, **values: Any) -> str:
        """Return a text with its places filled.

        Raises:
            KeyError: there is no such text, or a place has no value.
        """
        text = self._texts[name]
        return text.format(**values) if values else text

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def __iter__(self) -> Any:
        return iter(self._texts)


@cache
def load_texts(page: Page, language: Language) -> Texts:
    """Read the texts of a page."""
    path = Path(__file__).parent / f"{page}_{language}.yaml"
    return Texts(language, dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8")))))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value).replace(" %", "\u00a0%")  # a number and its unit stay on one line
