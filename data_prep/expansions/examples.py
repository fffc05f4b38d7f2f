"""The examples of query expansion: a query and its typed lines, one JSON object a line.

    {"query": "auth config", "output": [["lex", "authentication configuration"], ["vec", "how to configure auth"]]}

`expansion` may hold the lines as a model writes them, in the place of `output`. Any further field, such as `id` or
`category`, stays with its example.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from reward.expansion.parser import Expansion, Line, LineKind, parse
from reward.records.files import BadInput, first_problem, read_jsonl, write_atomically

MOST_LINES = {"lex": 3, "vec": 3, "hyde": 1}
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_NO_BREAK = r"^[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*$"
OneLine = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=_NO_BREAK)]


class Example(BaseModel):
    """A query and its typed lines, (kind, text) each, in their order."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = ""
    query: Text
    output: Annotated[tuple[tuple[LineKind, OneLine], ...], Field(min_length=1)]
    category: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _lines_of_text(cls, values: Any) -> Any:
        """Take the lines from `expansion`, a model's text, where there is no `output`."""
        if not isinstance(values, dict) or "output" in values or not isinstance(values.get("expansion"), str):
            return values
        expansion = parse(values["expansion"])
        if expansion.leaked:
            raise ValueError("expansion holds a piece of a chat template")
        if expansion.invalid:
            raise ValueError(f"expansion has a line without kind or text: {expansion.invalid[0][:60]!r}")
        rest = {name: value for name, value in values.items() if name != "expansion"}
        return rest | {"output": [(line.kind, line.text) for line in expansion.lines]}

    @property
    def expansion(self) -> Expansion:
        return Expansion(tuple(Line(kind, text) for kind, text in self.output))

    def with_lines(self, lines: Sequence[tuple[LineKind, str]]) -> Example:
        return self.model_copy(update={"output": tuple(lines)})

    def to_json(self) -> str:
        return json.dumps(self.model_dump(exclude_none=True, exclude_defaults=True), ensure_ascii=False)


@dataclass(frozen=True)
class BadRow:
    """A row that is no example, and why: one line naming the field."""

    file: Path
    row: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.problem}"


def read_rows(files: Sequence[Path]) -> Iterator[Example | BadRow]:
    """Yield every row of the files, in order.

    Raises:
        BadInput: a file is missing or no text, or a line is not a JSON object.
    """
    for file in files:
        for row, value in read_jsonl(file):
            yield _example(value, file, row)


def read_examples(files: Sequence[Path]) -> list[Example]:
    """Read files of which every row is an example.

    Raises:
        BadInput: as `read_rows`; a row is no example; or there is none.
    """
    examples = []
    for row in read_rows(files):
        if isinstance(row, BadRow):
            raise BadInput(str(row))
        examples.append(row)
    if not examples:
        raise BadInput(f"{', '.join(map(str, files))}: no example")
    return examples


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    write_atomically(path, (example.to_json() for example in examples))


def irregular(example: Example) -> list[str]:
    """Say where the lines of an example leave the form: one to three of lex and of vec, no more than one hyde, and no
    piece of a chat template."""
    found = []
    for kind, most in MOST_LINES.items():
        lines = sum(1 for one, _ in example.output if one == kind)
        if lines > most:
            found.append(f"more than {most} {kind}")
        if not lines and kind != "hyde":
            found.append(f"no {kind}")
    if parse(example.expansion.to_text()).leaked:
        found.append("piece of a chat template")
    return found


def _example(value: dict[str, Any], file: Path, row: int) -> Example | BadRow:
    try:
        return Example.model_validate(value)
    except ValidationError as error:
        return BadRow(file, row, first_problem(error).removeprefix("record: "))
