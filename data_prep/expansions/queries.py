"""Queries and expansions in categories, from files of several shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plain_text.text_file import open_text
from reward.expansion.parser import Expansion, parse
from reward.records.files import BadInput, read_jsonl

LONGEST_CATEGORY = 60  # characters


@dataclass(frozen=True)
class Asked:
    """A query to expand; `category` is "" where none is known."""

    id: str
    query: str
    category: str


@dataclass(frozen=True)
class Expanded:
    """A query with what some system wrote for it."""

    asked: Asked
    expansion: Expansion


def read_queries(path: Path) -> list[Asked]:
    """Read queries: JSON lines with `query` (and `category`) or samples of training (`original_query`), YAML of
    category → queries, or a text file with a query a line, in which the first comment (#) of a paragraph names the
    category of the queries below it.

    Raises:
        BadInput: the file cannot be read, a row has no query, or there is none.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if path.suffix == ".jsonl":
        asked = [_asked(value, path, row) for row, value in read_jsonl(path)]
    elif path.suffix in (".yaml", ".yml"):
        asked = list(of_categories(_read_yaml(path), str(path)))
    else:
        asked = list(_of_lines(path))
    if not asked:
        raise BadInput(f"{path}: no query")
    return asked


def read_expansions(path: Path) -> list[Expanded]:
    """Read JSON lines of `query` with either `expansion`, the text as a model wrote it, or `output`, lines of kind and
    text; or the .json that `evaluation.expansions` wrote. What is no typed line stays: the rules judge it.

    Raises:
        BadInput: the file cannot be read, a row lacks a field, or there is none.
    """
    expanded = []
    for row, value in _rows_of_result(path) if path.suffix == ".json" else read_jsonl(path):
        text = value.get("expansion")
        if text is None and isinstance(value.get("output"), list):
            text = "\n".join(_line(line, path, row) for line in value["output"])
        if not isinstance(text, str):
            raise BadInput(f"{path}: row {row}: neither expansion (a text) nor output (lines) is there")
        expanded.append(Expanded(_asked(value, path, row), parse(text)))
    if not expanded:
        raise BadInput(f"{path}: no expansion")
    return expanded


def _rows_of_result(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        yield from ((row, dict(value)) for row, value in enumerate(rows, start=1))
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: no result of evaluation.expansions") from None


def _line(line: Any, path: Path, row: int) -> str:
    match line:
        case [str(kind), str(said)]:
            return f"{kind}: {said}"
    raise BadInput(f"{path}: row {row}: output: each line must be [kind, text]")


def _asked(value: Mapping[str, Any], path: Path, row: int) -> Asked:
    query, category = value.get("query", value.get("original_query")), value.get("category")
    if not isinstance(query, str) or not query.strip():
        raise BadInput(f"{path}: row {row}: query: missing, empty, or no text")
    return Asked(
        str(value.get("id") or value.get("sample_id") or f"row_{row}"),
        query.strip(),
        category if isinstance(category, str) else "",
    )


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML: {str(error).splitlines()[0]}") from None


def of_categories(values: Any, source: str) -> Iterator[Asked]:
    """Yield the queries of a mapping of category → queries.

    Raises:
        BadInput: it is something else (names `source`).
    """
    if not isinstance(values, dict):
        raise BadInput(f"{source}: expected category: [queries]")
    for category, queries in values.items():
        if not isinstance(queries, list) or not all(isinstance(query, str) and query.strip() for query in queries):
            raise BadInput(f"{source}: {category}: expected a list of queries")
        for number, query in enumerate(queries, start=1):
            yield Asked(f"{category}_{number}", query.strip(), str(category))


def _of_lines(path: Path) -> Iterator[Asked]:
    category, in_comment = "", False
    if not path.stat().st_size:
        return
    for row, line in enumerate(open_text(path, BadInput).lines(), start=1):
        text = line.strip()
        if text.startswith("#"):
            if not in_comment:
                category = text.lstrip("# ")[:LONGEST_CATEGORY]
            in_comment = True
            continue
        in_comment = False
        if text:
            yield Asked(f"row_{row}", text, category)
