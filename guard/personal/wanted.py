"""What is looked for when a person asks to be forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guard.personal.masking import mask_id
from guard.personal.normal_form import normalise_lines


@dataclass(frozen=True)
class Wanted:
    """`patterns`: of what a text says of the person, in any letter case, as it is written or in its normal form. `ids`:
    whole values, also as `mask_id` writes them."""

    patterns: tuple[re.Pattern[str], ...]
    ids: frozenset[str]

    @classmethod
    def of(cls, patterns: Sequence[str], ids: Sequence[str]) -> Wanted:
        """Compile what a user typed.

        Raises:
            ValueError: nothing is looked for, a pattern is no regular expression or fits every text, an id is empty.
        """
        try:
            compiled = tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
        except re.error as error:
            raise ValueError(f"--person: not a regular expression ({error})") from None
        if not (compiled or ids):
            raise ValueError("name the person: --person PATTERN or --id ID")
        if any(pattern.search("") for pattern in compiled):
            raise ValueError("--person: fits every text")
        if not all(map(str.strip, ids)):
            raise ValueError("--id: is empty")
        return cls(compiled, frozenset(ids) | {mask_id(one) for one in ids})

    def is_in(self, value: Any) -> bool:
        """Say whether a text, or any text within a JSON value, is of the person."""
        return any(self._fits(text) for text in texts_in(value))

    def _fits(self, text: str) -> bool:
        if text in self.ids:
            return True
        return any(pattern.search(text) for pattern in self.patterns) or any(
            pattern.search(normal) for normal in (_normal(text),) if normal != text for pattern in self.patterns
        )

    def redact(self, text: str, mask: str) -> tuple[str, int]:
        """Replace what is of the person in a running text; return it, and how many places that were."""
        count = 0
        for pattern in self.patterns:
            text, found = pattern.subn(mask, text)
            count += found
        for one in sorted(self.ids, key=len, reverse=True):
            count += text.count(one)
            text = text.replace(one, mask)
        return text, count


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text within a JSON value, names of fields too, and numbers as texts: an id may be one."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def _normal(text: str) -> str:
    return text if text.isascii() else normalise_lines(text)
