"""What the rules are measured on: recorded expansions, outputs made to please a rule, and neighbours of both."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from reward.expansion.language import key_terms, language_of
from reward.expansion.parser import Line
from reward.records.files import BadInput, read_jsonl

HERE = Path(__file__).parent
COMMON = 5  # queries that share a line, their own words aside: the line is a template
MOST_TEMPLATED = 1 / 3  # share of an expansion's lines
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Output:
    """A completion for a query. `kind`: where it comes from, or how it cheats."""

    kind: str
    query: str
    text: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """An expansion of the data, and what part of it that is: told from the data alone, whatever the rules say.

    Args:
        part: `templated`: a third of its lines or more are templates (`is_template`); of the others, `good`: it has lex
            and vec lines, and `one kind`: it lacks one of them.
    """

    output: Output
    part: Literal["good", "templated", "one kind"]


def read_recorded(file: Path) -> list[Recorded]:
    """Read a file of `{"query": …, "output": [[kind, text], …]}` lines.

    Raises:
        BadInput: the file is missing, or a row has no query or lines.
    """
    rows: list[tuple[str, list[Line]]] = []
    for number, row in read_jsonl(file):
        try:
            rows.append((str(row["query"]), [Line(kind, str(text)) for kind, text in row["output"]]))
        except (KeyError, TypeError, ValueError):
            raise BadInput(f"{file}: row {number}: expected query and output, a list of [kind, text]") from None
    # A template: the same words beside the query's, for several queries.
    queries: dict[tuple[str, str], set[str]] = defaultdict(set)
    for query, lines in rows:
        for line in lines:
            queries[_residue(query, line)].add(query)

    def is_template(query: str, line: Line) -> bool:
        return len(queries[_residue(query, line)]) >= COMMON

    made = []
    for query, lines in rows:
        templates = sum(is_template(query, line) for line in lines) / len(lines)
        whole = {line.kind for line in lines} >= {"lex", "vec"}
        text = "\n".join(f"{line.kind}: {line.text}" for line in lines)
        part: Literal["good", "templated", "one kind"] = "good" if whole else "one kind"
        if templates >= MOST_TEMPLATED:
            part = "templated"
        made.append(Recorded(Output("recorded", query, text), part))
    return made


def _residue(query: str, line: Line) -> tuple[str, str]:
    own = set(_WORD.findall(query.lower()))
    return line.kind, " ".join(word for word in _WORD.findall(line.text.lower()) if word not in own)


def read_outputs(name: str) -> list[Output]:
    """Read `adversarial` or `faithful_zh` beside this file."""
    rows = yaml.safe_load((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    return [Output(row.get("kind", name), row["query"], row["text"], tuple(row.get("passages", ()))) for row in rows]


def neighbours(good: Sequence[Output], number: int, seed: int) -> Iterator[Output]:
    """Make outputs out of good ones that no rule was made for: words of each line shuffled; lines of another query,
    with and without a term of this one in each; words drawn from all lines."""
    draw = random.Random(seed)
    vocabulary = [word for one in good for line in one.text.split("\n") for word in line.split(": ", 1)[1].split()]
    for one in draw.sample(list(good), min(number, len(good))):
        other = draw.choice(list(good))
        terms = sorted(key_terms(one.query, language_of(one.query))) or [one.query]
        lines = [line.split(": ", 1) for line in one.text.split("\n")]

        def text(words: Sequence[Sequence[str]], kinds: Sequence[Sequence[str]] = lines) -> str:
            shown = zip(kinds, words, strict=True)
            return "\n".join(f"{kind}: {' '.join(said)}" for (kind, _), said in shown)

        split = [line[1].split() for line in lines]
        yield Output("shuffled", one.query, text([draw.sample(words, len(words)) for words in split]))
        yield Output("of another query", one.query, other.text)
        apart = [line.split(": ", 1) for line in other.text.split("\n")]
        termed = [[line[1], draw.choice(terms)] for line in apart]
        yield Output("of another query, a term in each line", one.query, text(termed, apart))
        drawn = [[*draw.choices(vocabulary, k=max(1, len(words) - 1)), draw.choice(terms)] for words in split]
        yield Output("drawn words", one.query, text([draw.sample(words, len(words)) for words in drawn]))
