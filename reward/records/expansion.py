"""What is recorded of a query expansion: its typed lines, and what its reward is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reward.records.sample import Record

LineKind = Literal["lex", "vec", "hyde"]
KINDS: tuple[LineKind, ...] = ("lex", "vec", "hyde")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an expansion: `text` has no line break, no blanks around it, and is not empty."""

    kind: LineKind
    text: str


class ExpansionParts(Record):
    """What the reward of an expansion is made of.

    Args:
        rules: the rule score, in [0, 1].
        points: what each rule gave, by name.
        gain: of the retrieval with the lines over the plain query's, in [-1, 1]; None where it is not part of the
            reward.
        paid: what of the gain counted; less than it where the lines recite a passage.
        unsearched: kinds of line that the service did not search with.
    """

    rules: float
    points: dict[str, float]
    gain: float | None = None
    paid: float | None = None
    unsearched: tuple[str, ...] = ()
