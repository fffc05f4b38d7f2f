"""Where a log line holds the columns: the tenant's own JSON paths first, then the built-in ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_STEP = re.compile(r'"([^"]+)"|\[(\d{1,6})\]|([^."\[\]*]+)')


@dataclass(frozen=True)
class LogPath:
    """Keys (str) and places in lists (int, from 0) that lead to a value; `own`: named by the tenant."""

    text: str
    steps: tuple[str | int, ...]
    own: bool = False

    @property
    def key(self) -> str:
        """The last key: what a line that holds the value has in it."""
        return next((step for step in reversed(self.steps) if isinstance(step, str)), self.text)

    @property
    def nested(self) -> bool:
        return len(self.steps) > 1

    def find(self, line: object) -> object:
        """Return what `line` holds at this path, None for nothing. JSON packed into a text is looked into."""
        node = line
        for step in self.steps:
            if isinstance(node, str) and node.startswith(("{", "[")):
                node = unpacked(node)
            if (isinstance(node, dict) and step in node) or (
                isinstance(node, list) and isinstance(step, int) and step < len(node)
            ):
                node = node[step]  # type: ignore[index]
            else:
                return None
        return node


def unpacked(text: str) -> object:
    """Parse the JSON in `text`; None where there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def parse_path(text: str) -> LogPath | None:
    """Parse `payload.query`, `$.choices[0].message` or `payload."user.query"`; None for what is no such path."""
    rest = text.strip().removeprefix("$.")
    steps: list[str | int] = []
    place = 0
    while place < len(rest):
        dot = rest.startswith(".", place)
        match = _STEP.match(rest, place + dot)
        index = match is not None and match[2] is not None
        # Keys follow a dot, places in a list do not; the first step is a key without a dot.
        if match is None or dot != (bool(steps) and not index) or (index and not steps):
            return None
        steps.append(int(match[2]) if index else match[1] or match[3])
        place = match.end()
    return LogPath(text, tuple(steps), own=True) if steps else None


class LogPaths:
    """The paths of every column.

    Raises:
        BadInput: a setting names no column, or what is no path.
    """

    def __init__(self, settings: SourceSettings):
        self.of_column: dict[str, tuple[LogPath, ...]] = {name: () for name in COLUMNS}
        for name, texts in settings.log_paths.items():
            if name not in self.of_column:
                raise BadInput(f"tenant setting sources.log_paths: no column {name} (columns: {', '.join(COLUMNS)})")
            for text in texts:
                path = parse_path(text)
                if path is None:
                    raise BadInput(
                        f"tenant setting sources.log_paths.{name}: not a JSON path: {text!r} "
                        "(keys joined by dots: payload.query, choices[0].message)"
                    )
                self.of_column[name] += (path,)
        for name, built_in in LOG_PATHS.items():
            self.of_column[name] += tuple(LogPath(text, tuple(text.split("."))) for text in built_in)

    @cached_property
    def flat_names(self) -> dict[str, list[str]]:
        """Return column → further names of it in a line that is not nested, so that any workbook's headings do as
        keys."""
        names: dict[str, list[str]] = {name: [] for name in COLUMNS}
        for key, name in (*((name, name) for name in COLUMNS), *ALIASES.items()):
            if all(path.steps != (key,) for path in self.of_column[name]):
                names[name].append(key)
        return names

    @cached_property
    def roots(self) -> list[str]:
        """Return the first keys of all nested paths."""
        nested = (path for paths in self.of_column.values() for path in paths if path.nested)
        return list(dict.fromkeys(str(path.steps[0]) for path in nested))

    def keys(self, column: str) -> list[str]:
        """Return the keys of which a line that holds `column` has at least one."""
        return list(dict.fromkeys([*(path.key for path in self.of_column[column]), *self.flat_names[column]]))

    def looked_at(self, column: str) -> str:
        return ", ".join(path.text for path in self.of_column[column])

    def raw_cells(self, line: Mapping[str, Any]) -> dict[str, object]:
        """Return the cells that `line` (one parsed line) holds: the first path counts, then any heading."""
        cells: dict[str, object] = {}
        for name, paths in self.of_column.items():
            found = [value for path in paths if (value := path.find(line)) is not None]
            value = next((value for value in found if not _is_empty(value)), [] if [] in found else None)
            if value is not None:
                cells[name] = value
        for key, value in line.items():
            heading = key.strip().lower()
            name = ALIASES.get(heading, heading)
            if name in self.of_column and name not in cells and not _is_empty(value):
                cells[name] = value
        return cells

    def is_log(self, line: Mapping[str, Any]) -> bool:
        """Return whether `line` is nested as a service's log is, rather than flat as a table's row is."""
        own = (path for path in self.of_column["original_query"] if path.own)
        return any(line.get(root) is not None for root in self.roots) or any(path.find(line) for path in own)


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip())


def placed(tree: dict[str, Any], path: LogPath, kind: object) -> bool:
    """Add `path` to `tree`, a JSON structure as DuckDB's from_json takes it; False when it does not fit there: it
    leads through a list, a value there is read whole, or (its names ignore case) another key is spelled alike."""
    node: object = tree
    for depth, step in enumerate(path.steps):
        if not isinstance(node, dict) or not isinstance(step, str):
            return False
        if step not in node:
            below = path.steps[depth + 1 :]
            if any(step.lower() == key.lower() for key in node) or not all(isinstance(inner, str) for inner in below):
                return False
            for inner in reversed(below):
                kind = {inner: kind}
            node[step] = kind
            return True
        node = node[step]
    return bool(node == kind)


def json_path(path: LogPath) -> str:
    """Write `path` as DuckDB's JSON functions take it."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in path.steps)
