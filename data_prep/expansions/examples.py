"""The examples of query expansion: a query and its typed lines, one JSON object a line.

    {"query": "auth config", "output": [["lex", "authentication configuration"], ["vec", "how to configure auth"]]}

`expansion` may hold the lines as a model writes them, in the place of `output`. Any further field, such as `id` or
`category`, stays with its example. A row without lines is a prompt for RL alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from reward.expansion.parser import Expansion, Line, LineKind, parse
from reward.records.files import BadInput, first_problem, read_jsonl, write_atomically

PROMPTS = "prompts"  # the context of a validation that takes rows without lines
MOST_LINES = {"lex": 3, "vec": 3, "hyde": 1}
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


def _one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise ValueError("holds a line break")
    return text


OneLine = Annotated[Text, AfterValidator(_one_line)]


class Example(BaseModel):
    """A query and its typed lines, (kind, text) each, in their order."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str = ""
    query: Text
    output: tuple[tuple[LineKind, OneLine], ...] = ()
    category: str | None = None
    relevant_doc_ids: tuple[str, ...] = ()  # passages known to answer the query

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

    @model_validator(mode="after")
    def _has_lines(self, info: ValidationInfo) -> Example:
        if not self.output and info.context != PROMPTS:
            raise ValueError("output: missing or empty")
        return self

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


def read_rows(files: Sequence[Path], *, prompts: bool = False) -> Iterator[Example | BadRow]:
    """Yield every row of the files, in order; with `prompts` a row may have a query alone.

    Raises:
        BadInput: a file is missing or no text, or a line is not a JSON object.
    """
    for file in files:
        for row, value in read_jsonl(file):
            yield _example(value, file, row, PROMPTS if prompts else None)


def read_examples(files: Sequence[Path], *, prompts: bool = False) -> list[Example]:
    """Read files of which every row is an example, or with `prompts` at least a query.

    Raises:
        BadInput: as `read_rows`; a row is no example; or there is none.
    """
    examples = []
    for row in read_rows(files, prompts=prompts):
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


def _example(value: dict[str, Any], file: Path, row: int, context: str | None) -> Example | BadRow:
    try:
        return Example.model_validate(value, context=context)
    except ValidationError as error:
        return BadRow(file, row, first_problem(error).removeprefix("record: Value error, "))
