"""Where a log line holds the columns: the tenant's own JSON paths first, then the built-in ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from data_prep.rows.columns import ALIASES, COLUMNS, LOG_PATHS, TEXTS
from data_prep.rows.envelopes import ANSWERED, CONTEXT, ENVELOPES, VAGUE
from data_prep.rows.headings import heading_key
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

OF_CONTEXT = ("user_profile", "history_summary", "history_context", "thought_unit")
_OF_ANSWER = ("rewritten_query", "recall_results", "thought_unit", "model", "success", "error")
_DEEPEST = 8  # objects and lists within each other

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


@lru_cache(4096)
def same_key(key: str) -> str:
    """Reduce a key to what counts, as a heading: `User_Profile`, ` user-profile ` and `userProfile` are one key."""
    return heading_key(key)


def is_envelope(steps: tuple[str | int, ...]) -> bool:
    """Return whether the object at `steps` is one around what a service logs: the line itself, an envelope in one, the
    only item of a list there. Nothing is around a context but the line and envelopes."""
    if len(steps) > _DEEPEST or (CONTEXT in steps and any(steps[steps.index(CONTEXT) + 1 :])):
        return False
    return all(step == 0 or (isinstance(step, str) and (step in ENVELOPES or step == CONTEXT)) for step in steps)


def holds(steps: tuple[str | int, ...], column: str) -> bool:
    """Return whether an envelope may hold `column`."""
    return CONTEXT not in steps or column in OF_CONTEXT


def rank(steps: tuple[str | int, ...], column: str) -> tuple[bool, int, str]:
    """Return what puts the envelopes that may hold `column` in order: those on its side, the question's or the
    answer's, come first, then outer ones, then by name."""
    return ANSWERED.isdisjoint(steps) == (column in _OF_ANSWER), len(steps), shown(steps)


def shown(steps: tuple[str | int, ...]) -> str:
    """Write steps as a path."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


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

    @cached_property
    def own(self) -> frozenset[tuple[str | int, ...]]:
        """Return the paths that the tenant names."""
        return frozenset(path.steps for paths in self.of_column.values() for path in paths if path.own)

    @cached_property
    def inner_keys(self) -> dict[str, str]:
        """Return what counts (`same_key`) of the keys that are understood in every envelope → column."""
        names = {key: column for key, column in ALIASES.items() if column in TEXTS}
        names |= {path.key: column for column, paths in self.of_column.items() for path in paths if not path.own}
        return {same_key(key): column for key, column in names.items() if key not in VAGUE}

    def keys(self, column: str) -> list[str]:
        """Return the keys of which a line that holds `column` has at least one."""
        return list(dict.fromkeys([*(path.key for path in self.of_column[column]), *self.flat_names[column]]))

    def looked_at(self, column: str) -> str:
        return ", ".join(path.text for path in self.of_column[column])
