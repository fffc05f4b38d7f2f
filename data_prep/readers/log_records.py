"""Decode the lines of one shape straight into their cells: no dict is made of what is not wanted, no hit twice.

A line of another shape, or with another kind of value where objects or hits are, is refused: `LogShapes.find` reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec

from data_prep.rows.missing import SPELLINGS
from data_prep.rows.recall_cells import BareHit

_OF_A_HIT = frozenset(BareHit.__struct_fields__)
SOURCES = ("production_log", "test_set")
_Empty = msgspec.defstruct("Empty", [], forbid_unknown_fields=True, gc=False)
# What `missing.is_missing` names, as far as a decoder can know it.
NOTHING = _Empty | tuple[()] | Literal[("", *SPELLINGS)] | None
# What refuses a line: another shape, no JSON at all, nested too deeply.
OTHER_SHAPE = (ValueError, RecursionError)


class LogRecords:
    """Reads lines that have the keys of `line`, and objects where it has them.

    Args:
        line: a line of the shape, parsed.
        objects: the objects within it whose keys belong to the shape, each a value of the one before it or of `line`.
        kinds: (id of the object, key) → what must be there, where another kind of value would be looked into.
        places: column → (object, key) of the one place that holds it.
        hits: (object, key) of the recorded hits; None for a shape without. No column's place is one of `objects`.
        nested: whether the lines are a service's own (`LogShapes.find`).

    Attributes:
        columns: the column of each value that `values` returns.
        bare_hits: True where `hits` returns a list of `BareHit`, or None. Otherwise `hits` returns the recorded value.
    """

    def __init__(
        self,
        line: dict[str, Any],
        objects: Sequence[dict[str, Any]],
        kinds: Mapping[tuple[int, str], Any],
        places: Mapping[int, tuple[dict[str, Any], str]],
        hits: tuple[dict[str, Any], str] | None,
        nested: bool,
    ):
        self._inner = {id(inner): inner for inner in objects}
        self._paths: dict[tuple[int, str], str] = {}  # (object, key) → where the decoded line has it
        self._kinds = dict(kinds)
        # Other keys of a hit are read too, and passed over later: what is no text, or no number, refuses its line.
        self.bare_hits = hits is None or _are_bare(hits[0][hits[1]])
        if hits and self.bare_hits:
            self._kinds[id(hits[0]), hits[1]] = list[BareHit] | None
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(self._struct(line, "")).decode
        self.nested = nested
        self.columns = list(places)
        self.values = self._getter([places[column] for column in self.columns])
        self.hits = attrgetter(self._paths[id(hits[0]), hits[1]]) if hits else _nothing
        self.source = attrgetter(self._paths[id(line), "source"]) if "source" in line else _nothing

    def _struct(self, node: dict[str, Any], path: str) -> type[msgspec.Struct]:
        fields, names = [], {}
        for number, (key, value) in enumerate(node.items()):
            name = f"f{number}"
            names[name] = key
            self._paths[id(node), key] = where = f"{path}.{name}" if path else name
            kind = self._struct(value, where) if id(value) in self._inner else self._kinds.get((id(node), key), Any)
            fields.append((name, kind))
        # Decoded values refer to nothing above them: no garbage collector need look at them.
        return msgspec.defstruct("Line", fields, rename=names, forbid_unknown_fields=True, gc=False)

    def _getter(self, places: Sequence[tuple[dict[str, Any], str]]) -> Callable[[Any], tuple[object, ...]]:
        paths = [self._paths[id(owner), key] for owner, key in places]
        if len(paths) > 1:
            return attrgetter(*paths)
        one = attrgetter(paths[0]) if paths else None
        return lambda record: (one(record),) if one else ()


def _are_bare(hits: object) -> bool:
    return hits is None or (
        isinstance(hits, list) and all(isinstance(hit, dict) and hit.keys() <= _OF_A_HIT for hit in hits)
    )


def _nothing(_: object) -> None:
    return None
