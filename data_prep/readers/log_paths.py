"""Where a log line holds the columns: the tenant's own JSON paths first, then the built-in ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS
from data_prep.rows.dialogue import unpacked
from data_prep.rows.headings import heading_key
from data_prep.rows.missing import is_missing, spelled
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
        """Return what `line` holds at this path, None for nothing. JSON packed into a text, even twice, is looked into.
        A key that is spelled otherwise (`same_key`) counts where the proper one is not there."""
        node = line
        for step in self.steps:
            if isinstance(node, str):
                node = unpacked(node)
            if isinstance(step, int):
                if not isinstance(node, list) or step >= len(node):
                    return None
                node = node[step]
                continue
            if not isinstance(node, dict):
                return None
            if step not in node:
                other = _by_meaning(tuple(node)).get(same_key(step))
                if other is None:
                    return None
                step = other
            node = node[step]
        return node


@lru_cache(4096)
def same_key(key: str) -> str:
    """Reduce a key to what counts, as a heading: `User_Profile`, ` user-profile ` and `userProfile` are one key."""
    return heading_key(key)


@lru_cache(1024)
def _by_meaning(keys: tuple[str, ...]) -> dict[str, str]:
    """Return what counts of each key → the first key that it counts of."""
    return {same_key(key): key for key in reversed(keys)}


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

    @cached_property
    def objects(self) -> list[tuple[str | int, ...]]:
        """Return the places of the objects that hold something wanted, the line itself, (), first."""
        found: dict[tuple[str | int, ...], None] = {(): None}
        for paths in self.of_column.values():
            for path in paths:
                for length in range(1, len(path.steps)):
                    found.setdefault(path.steps[:length])
        return list(found)

    def wanted_in(self, place: tuple[str | int, ...]) -> list[str]:
        """Return the keys that are looked for in the object at `place`."""
        depth = len(place)
        paths = (path.steps for paths in self.of_column.values() for path in paths)
        steps = (steps[depth] for steps in paths if len(steps) > depth and steps[:depth] == place)
        return list(dict.fromkeys(step for step in steps if isinstance(step, str)))

    def keys(self, column: str) -> list[str]:
        """Return the keys of which a line that holds `column` has at least one."""
        return list(dict.fromkeys([*(path.key for path in self.of_column[column]), *self.flat_names[column]]))

    def looked_at(self, column: str) -> str:
        return ", ".join(path.text for path in self.of_column[column])

    def raw_cells(self, line: Mapping[str, Any]) -> dict[str, object]:
        """Return the cells that `line` (one parsed line) holds: the first path counts, then any heading."""
        cells: dict[str, object] = {}
        for name in self.of_column:
            value = next((value for value in self._values(name, line) if not is_missing(value)), None)
            # No hits at all are something: the search found nothing.
            if value is None and name == "recall_results" and [] in self._values(name, line):
                value = []
            if value is None:  # a spelling of missing goes on, to be named
                value = next((value for value in self._values(name, line) if spelled(value)), None)
            if value is not None:
                cells[name] = value
        return cells

    def _values(self, name: str, line: Mapping[str, Any]) -> Iterator[object]:
        """Yield what `line` holds at each place of a column, in their order."""
        for path in self.of_column[name]:
            yield path.find(line)
        headings = self.flat_names[name]
        yield from (line[key] for key in headings if key in line)
        others = _by_meaning(tuple(line))
        yield from (line[other] for key in headings if (other := others.get(same_key(key))) and key not in line)

    def is_log(self, line: Mapping[str, Any]) -> bool:
        """Return whether `line` is nested as a service's log is, rather than flat as a table's row is."""
        roots = (LogPath(root, (root,)).find(line) for root in self.roots)
        if any(isinstance(unpacked(root) if isinstance(root, str) else root, dict) for root in roots):
            return True
        own = (path for path in self.of_column["original_query"] if path.own)
        return any(path.find(line) not in (None, "") for path in own)


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


def json_path(steps: Sequence[str | int]) -> str:
    """Write a path as DuckDB's JSON functions take it."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in steps)
