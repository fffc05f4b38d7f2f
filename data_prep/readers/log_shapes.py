"""Take the cells out of parsed log lines. Where a line holds each column is worked out once for all lines of its shape:
the keys of the line itself and of those objects in it that paths lead through. A log has few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from data_prep.readers.log_paths import LogPaths, same_key
from data_prep.rows.columns import COLUMNS
from data_prep.rows.dialogue import unpacked
from data_prep.rows.missing import is_missing, spelled

# Of an object its keys, of a list its length.
_Keys: TypeAlias = tuple[str, ...] | int
_Place: TypeAlias = tuple[int, str | int]  # number of an object or list among those of the line, key in it

_MOST_SHAPES = 512  # kept; of a log whose keys are ids there is no end
_RECALL = COLUMNS.index("recall_results")


@dataclass(frozen=True)
class _Shape:
    """`single`: column → the one place that can hold it; `several`: column → those that can, the first that holds
    something counts. `own`: places of the query that the tenant names."""

    nested: bool
    single: list[tuple[int, int, str | int]]
    several: list[tuple[int, list[_Place]]]
    own: list[_Place]


class LogShapes:
    """Finds the cells of lines at the places that `paths` names.

    A key counts however it is spelled (`log_paths.same_key`): the proper spelling first, then the others in their
    order. JSON that is packed into a text, even twice, is looked into.
    """

    def __init__(self, paths: LogPaths):
        self._paths = paths
        self._numbers = {steps: number for number, steps in enumerate(paths.objects)}
        steps = (step for found in paths.of_column.values() for path in found for step in path.steps)
        self._longest = 1 + max((step for step in steps if isinstance(step, int)), default=-1)
        self._below: list[dict[_Keys, list[tuple[int, list[str | int]]]]] = [{} for _ in paths.objects]
        self._shapes: dict[tuple[object, ...], _Shape] = {}

    def find(self, line: dict[str, Any], cells: Sequence[list[object]], row: int) -> bool:
        """Put what `line` holds into `cells` (a list for each of `columns.COLUMNS`) at `row`; return whether it is
        nested as a service's log is, or has its query where the tenant says, rather than flat as a table's row."""
        numbers: list[int] = [0]
        nodes: list[Any] = [line]
        keys: _Keys
        key: list[object] = []
        # Both lists grow while the objects within objects are found.
        for number, node in zip(numbers, nodes, strict=False):
            keys = tuple(node) if type(node) is dict else min(len(node), self._longest)
            key.append(number)
            key.append(keys)
            below = self._below[number].get(keys)
            for inner, spellings in self._find_below(number, keys) if below is None else below:
                for spelling in spellings:
                    value = node[spelling]
                    if type(value) is str:
                        value = unpacked(value)
                    if type(value) is dict or type(value) is list:
                        numbers.append(inner)
                        nodes.append(value)
                        break
        shape = self._shapes.get(tuple(key))
        if shape is None:
            shape = self._make_shape(numbers, key[1::2], tuple(key))
        for column, at, name in shape.single:
            cells[column][row] = nodes[at][name]
        for column, places in shape.several:
            values = [nodes[at][name] for at, name in places]
            cell = next((value for value in values if not is_missing(value)), None)
            # No hits at all are something: the search found nothing. A spelling of missing goes on, to be named.
            if cell is None and column == _RECALL and any(_is_empty_list(value) for value in values):
                cell = []
            cells[column][row] = next(filter(spelled, values), None) if cell is None else cell
        return shape.nested or any(not is_missing(nodes[at][name]) for at, name in shape.own)

    def _find_below(self, number: int, keys: _Keys) -> list[tuple[int, list[str | int]]]:
        """Return, for each wanted object that may be in the one of `number`, its own number and its keys there."""
        place = self._paths.objects[number]
        found = []
        for steps, inner in self._numbers.items():
            if len(steps) == len(place) + 1 and steps[:-1] == place and (spellings := _spellings(steps[-1], keys)):
                found.append((inner, spellings))
        if len(self._below[number]) >= _MOST_SHAPES:
            self._below[number].clear()
        self._below[number][keys] = found
        return found

    def _make_shape(self, numbers: Sequence[int], all_keys: Sequence[Any], key: tuple[object, ...]) -> _Shape:
        at = {number: index for index, number in enumerate(numbers)}

        def places(steps: tuple[str | int, ...]) -> Iterator[_Place]:
            index = at.get(self._numbers.get(steps[:-1], -1))
            if index is not None:
                yield from ((index, name) for name in _spellings(steps[-1], all_keys[index]))

        single, several = [], []
        for column, name in enumerate(COLUMNS):
            found = [place for path in self._paths.of_column[name] for place in places(path.steps)]
            headings = self._paths.flat_names[name]
            found += [(0, heading) for heading in headings if heading in all_keys[0]]
            found += [place for heading in headings for place in places((heading,))]
            found = list(dict.fromkeys(found))
            if len(found) == 1:
                single.append((column, *found[0]))
            elif found:
                several.append((column, found))
        own = [path for path in self._paths.of_column["original_query"] if path.own]
        roots = [at[number] for root in self._paths.roots if (number := self._numbers[(root,)]) in at]
        shape = _Shape(
            nested=any(isinstance(all_keys[index], tuple) for index in roots),
            single=single,
            several=several,
            own=[place for path in own for place in places(path.steps)],
        )
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[key] = shape
        return shape


def _is_empty_list(value: object) -> bool:
    return value == [] or (isinstance(value, str) and value.strip() == "[]")


def _spellings(step: str | int, keys: _Keys) -> list[str | int]:
    """Return under which of `keys` that is which `step` asks for: as it is written, then as others write it."""
    if isinstance(step, int):
        return [step] if isinstance(keys, int) and step < keys else []
    if isinstance(keys, int):
        return []
    meaning = same_key(step)
    others = [key for key in keys if key != step and same_key(key) == meaning]
    return [step, *others] if step in keys else [*others]
