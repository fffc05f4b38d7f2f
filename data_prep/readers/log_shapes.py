"""Take the cells out of parsed log lines. Where a line holds each column is worked out once for all lines of its shape:
the keys of the line itself and of those objects in it that may hold something wanted. A log has few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from data_prep.readers.log_paths import LogPaths, holds, is_envelope, rank, same_key, shown
from data_prep.readers.log_records import NOTHING, SOURCES, LogRecords
from data_prep.rows.columns import COLUMNS
from data_prep.rows.dialogue import asked_last, turns_in, unpacked
from data_prep.rows.envelopes import ANSWERED, CHATS, CONTEXT, TELLING, WORDED
from data_prep.rows.missing import is_missing, spelled
from data_prep.rows.packed_texts import behind_words, packed_problem, told_by
from data_prep.rows.remarks import Remarks, remark
from plain_text.thinking import without_thinking

# Of an object its keys, of a list its length.
_Keys: TypeAlias = tuple[str, ...] | int
_Place: TypeAlias = tuple[int, str | int]  # number of an object or list among those of the line, key in it
_Steps: TypeAlias = tuple[str | int, ...]

_MOST_SHAPES = 512  # kept; of a log whose keys are ids there is no end
_REPEATS = 8  # lines of a shape before what decodes it is made: most shapes of odd logs are seen once
_MOST_UNREAD = 1000  # keys that are named as not read
_RECALL, _QUERY, _REWRITE, _HISTORY = map(
    COLUMNS.index, ("recall_results", "original_query", "rewritten_query", "history_context")
)
_NO_QUESTION = ANSWERED | {CONTEXT}


@dataclass
class _Shape:
    """`single`: column → the one place that can hold it; `several`: column → those that can, the first that holds
    something counts. `own`: places of the query that the tenant names. `turns`: places that may hold a dialogue's.
    `unnamed`: places that no column takes, of which no line has held anything yet. `seen`: lines of this shape;
    `records` reads the next ones, where they can be read so."""

    nested: bool
    single: list[tuple[int, int, str | int]]
    several: list[tuple[int, list[_Place]]]
    own: list[_Place]
    turns: list[_Place]
    unnamed: list[_Place] = field(default_factory=list)
    seen: int = 0
    records: LogRecords | None = None


class LogShapes:
    """Finds the cells of lines at the places that `paths` names, and in the envelopes of `log_paths`.

    A key counts however it is spelled (`log_paths.same_key`): the proper spelling first, then the others in their
    order. JSON that is packed into a text, even twice, is looked into. A list in place of an object counts when it
    holds one. A key may be the path itself (`payload.query`), as flattened logs have it.

    Args:
        remarks: takes, by row, what in an envelope is not read: text that is cut-off JSON, or none.

    Attributes:
        unread: paths of values that no column takes.
        records: reads further lines of the shape that was found last; None where `find` must.
    """

    def __init__(self, paths: LogPaths, remarks: Remarks):
        self._paths, self._remarks = paths, remarks
        steps = (step for found in paths.of_column.values() for path in found for step in path.steps)
        self._longest = max((2, *(step + 1 for step in steps if isinstance(step, int))))
        self.unread: dict[str, None] = {}
        self.records: LogRecords | None = None
        self._broken = -1  # the row in hand, where an envelope in it is no JSON
        self._forget()

    def _forget(self) -> None:
        self._places: list[_Steps] = list(self._paths.objects)
        self._numbers = {steps: number for number, steps in enumerate(self._places)}
        self._below: list[dict[_Keys, list[tuple[int, list[str | int]]]]] = [{} for _ in self._places]
        self._shapes: dict[tuple[object, ...], _Shape] = {}

    def find(self, line: dict[str, Any], cells: Sequence[list[object]], row: int) -> bool:
        """Put what `line` holds into `cells` (a list for each of `columns.COLUMNS`) at `row`; return whether it is
        nested as a service's log is, if cut off, or has its query where the tenant says, rather than flat as a table's
        row."""
        self._broken = -1
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
                        value = self._opened(value, inner, row)
                    if type(value) is dict or type(value) is list:
                        numbers.append(inner)
                        nodes.append(value)
                        break
                else:
                    self._remark_unread(self._places[inner], [node[spelling] for spelling in spellings], row)
        shape = self._shapes.get(tuple(key))
        if shape is None:
            shape = self._make_shape(numbers, nodes, key[1::2], tuple(key))
        if shape.unnamed:
            shape.unnamed = [one for one in shape.unnamed if not self._is_named(one, numbers, nodes)]
        shape.seen += 1
        if shape.seen == _REPEATS:
            shape.records = self._make_records(shape, numbers, nodes)
        self.records = shape.records
        for column, at, name in shape.single:
            cells[column][row] = nodes[at][name]
        for column, places in shape.several:
            values = [nodes[at][name] for at, name in places]
            cell = next((value for value in values if not is_missing(value)), None)
            # No hits at all are something: the search found nothing. A spelling of missing goes on, to be named.
            if cell is None and column == _RECALL and any(_is_empty_list(value) for value in values):
                cell = []
            cells[column][row] = next(filter(spelled, values), None) if cell is None else cell
        assumed = bool(shape.turns) and self._take_turns(shape.turns, nodes, cells, row)
        own = any(not is_missing(nodes[at][name]) for at, name in shape.own)
        return shape.nested or assumed or row == self._broken or own

    def _take_turns(
        self, places: Sequence[_Place], nodes: Sequence[Any], cells: Sequence[list[object]], row: int
    ) -> bool:
        """Take a list of turns as the dialogue where none is recorded; return whether its last gives the query."""
        for at, name in places if is_missing(cells[_HISTORY][row]) else ():
            turns = turns_in(nodes[at][name])
            if not turns:
                continue
            asked, query = asked_last(turns), cells[_QUERY][row]
            is_assumed = is_missing(query) and bool(asked)
            if is_assumed:
                cells[_QUERY][row] = asked
                remark(self._remarks, row, "original_query", [f"the last turn of the user, assumed ({name})"])
            elif is_missing(query):
                remark(self._remarks, row, str(name), ["the last turn is no text of the user: no query"])
            # What is asked now is no history.
            before = turns[:-1] if asked and (is_assumed or asked == " ".join(str(query).split())) else turns
            cells[_HISTORY][row] = before or None
            return is_assumed
        return False

    def _find_below(self, number: int, keys: _Keys) -> list[tuple[int, list[str | int]]]:
        """Return, for each object that may be in the one of `number`, its own number and its keys there."""
        place = self._places[number]
        wanted = {steps[-1]: None for steps in self._paths.objects if steps and steps[:-1] == place}
        if is_envelope(place):
            within = [0] if keys == 1 else map(same_key, keys) if isinstance(keys, tuple) else ()
            wanted |= {step: None for step in within if is_envelope((*place, step))}
        found = []
        for step in wanted:
            if spellings := _spellings(step, keys):
                found.append((self._number((*place, step)), spellings))
        if len(self._below[number]) >= _MOST_SHAPES:
            self._below[number].clear()
        self._below[number][keys] = found
        return found

    def _number(self, steps: _Steps) -> int:
        number = self._numbers.setdefault(steps, len(self._places))
        if number == len(self._places):
            self._places.append(steps)
            self._below.append({})
        return number

    def _make_shape(
        self, numbers: Sequence[int], nodes: Sequence[Any], all_keys: Sequence[Any], key: tuple[object, ...]
    ) -> _Shape:
        at = {number: index for index, number in enumerate(numbers)}

        def places(steps: _Steps) -> Iterator[_Place]:
            index = at.get(self._numbers.get(steps[:-1], -1))
            if index is not None:
                yield from ((index, name) for name in _spellings(steps[-1], all_keys[index]))

        enveloped = self._in_envelopes(numbers, all_keys)
        of_column: list[list[_Place]] = []
        for name in COLUMNS:
            found = [place for path in self._paths.of_column[name] for place in places(path.steps)]
            headings = self._paths.flat_names[name]
            found += [(0, heading) for heading in headings if heading in all_keys[0]]
            found += [place for heading in headings for place in places((heading,))]
            found += [place for _, place in sorted(enveloped.get(name, ()), key=lambda one: rank(one[0], name))]
            of_column.append(list(dict.fromkeys(found)))
        # What answers is no question, unless the rewrite is there too, under its own name.
        if not of_column[_REWRITE]:
            answers = {place for steps, place in enveloped.get("original_query", ()) if not ANSWERED.isdisjoint(steps)}
            of_column[_QUERY] = [place for place in of_column[_QUERY] if place not in answers]
        own = [path for path in self._paths.of_column["original_query"] if path.own]
        roots = [at[number] for root in self._paths.roots if (number := self._numbers[(root,)]) in at]
        dotted = {place for name in ("original_query", "rewritten_query") for _, place in enveloped.get(name, ())}
        inner = any(place[0] or place in dotted for column in (_QUERY, _REWRITE) for place in of_column[column])
        shape = _Shape(
            nested=inner or any(isinstance(all_keys[index], tuple) for index in roots),
            single=[(column, *found[0]) for column, found in enumerate(of_column) if len(found) == 1],
            several=[(column, found) for column, found in enumerate(of_column) if len(found) > 1],
            own=[place for path in own for place in places(path.steps)],
            turns=self._turns(numbers, all_keys),
        )
        read = {place for found in of_column for place in found}
        read |= {place for place in shape.turns if turns_in(nodes[place[0]][place[1]])}
        shape.unnamed = self._name_unread(numbers, nodes, read)
        if len(self._places) > _MOST_SHAPES:
            self._forget()
            return shape  # its key holds numbers that are no more
        if len(self._shapes) >= _MOST_SHAPES:
            self._shapes.clear()
        self._shapes[key] = shape
        return shape

    def _make_records(self, shape: _Shape, numbers: Sequence[int], nodes: Sequence[Any]) -> LogRecords | None:
        """Return what decodes lines of `shape`, of which `nodes` are one; None where more than its keys decides."""
        if shape.several or shape.own or shape.turns or not all(type(node) is dict and node for node in nodes):
            return None
        inner = {id(node) for node in nodes[1:]}
        kinds: dict[tuple[int, str], Any] = {}
        for number, node in zip(numbers, nodes, strict=True):
            for _, spellings in self._below[number].get(tuple(node), ()):
                first, *others = [node[spelling] for spelling in spellings]
                if node is nodes[0] and spellings == ["source"] and first in SOURCES:
                    kinds[id(node), "source"] = Literal[SOURCES]
                elif first is None and not others:
                    kinds[id(node), str(spellings[0])] = None
                elif others or id(first) not in inner:
                    return None  # the first spelling that is an object counts, or a text is looked into
        places = {column: (nodes[at], str(name)) for column, at, name in shape.single}
        if any(id(node[name]) in inner or (id(node), name) in kinds for node, name in places.values()):
            return None  # an object counts as a whole, too
        for at, name in shape.unnamed:  # what holds something after all is to be named
            kinds.setdefault((id(nodes[at]), str(name)), NOTHING)
        hits = places.pop(_RECALL, None)
        try:
            return LogRecords(nodes[0], nodes[1:], kinds, places, hits, shape.nested)
        except ValueError:  # a key that no decoder can be made for: with a quote, or half a character
            return None

    def _turns(self, numbers: Sequence[int], all_keys: Sequence[Any]) -> list[_Place]:
        """Return the keys of the line and of the question's envelopes under which chats are logged."""
        asked = ((index, self._places[number]) for index, number in enumerate(numbers))
        within = [index for index, steps in asked if is_envelope(steps) and _NO_QUESTION.isdisjoint(steps)]
        keys = ((index, name) for index in within if isinstance(all_keys[index], tuple) for name in all_keys[index])
        return sorted((place for place in keys if same_key(place[1]) in CHATS), key=lambda place: place[1] == CONTEXT)

    def _in_envelopes(self, numbers: Sequence[int], all_keys: Sequence[Any]) -> dict[str, list[tuple[_Steps, _Place]]]:
        """Return column → what may hold it in the envelopes of a line: the steps of the envelope, and the place."""
        found: dict[str, list[tuple[_Steps, _Place]]] = {}
        for index, (number, keys) in enumerate(zip(numbers, all_keys, strict=True)):
            place = self._places[number]
            if not isinstance(keys, tuple) or not is_envelope(place):
                continue
            for name in keys:
                *around, last = name.split(".")
                steps = (*place, *map(same_key, around))
                column = self._paths.inner_keys.get(same_key(last))
                if column and steps and is_envelope(steps) and holds(steps, column):
                    found.setdefault(column, []).append((steps, (index, name)))
        return found

    def _opened(self, text: str, number: int, row: int) -> object:
        """Return what is packed into `text`, behind a model's thinking and within its fences too; None for nothing."""
        value = unpacked(text)
        text = value if isinstance(value, str) else text
        if not (value is None or value is text) or "{" not in text:
            return value
        if without_thinking(text) != text:
            remark(self._remarks, row, shown(self._places[number]), ["<think> stripped"])
        value = unpacked(told_by(text))
        if value is None and not WORDED.isdisjoint(self._places[number][-1:]):
            value, words = behind_words(text)
            if words:
                remark(self._remarks, row, shown(self._places[number]), ["words before the JSON passed over"])
        return value

    def _remark_unread(self, steps: _Steps, values: Sequence[object], row: int) -> None:
        """Remark on text in an envelope's place: JSON that cannot be read, or words that may be what is wanted."""
        for value in values:
            if isinstance(value, str) and not is_missing(value) and steps not in self._paths.own:
                if problem := packed_problem(value):
                    self._broken = row
                    remark(self._remarks, row, shown(steps), [f"packed JSON cannot be read ({problem})"])
                elif not TELLING.isdisjoint(steps[-1:]):
                    remark(self._remarks, row, shown(steps), ["a text, not read"])

    def _name_unread(self, numbers: Sequence[int], nodes: Sequence[Any], used: set[_Place]) -> list[_Place]:
        """Name the values of a line, the first of its shape, that no column takes and no object is within. Return the
        places of those that are missing."""
        unnamed = []
        met = {self._places[number] for number in numbers}
        read_lists = {(*self._places[numbers[index]], same_key(str(name))) for index, name in used}
        for index, (number, node) in enumerate(zip(numbers, nodes, strict=True)):
            place = self._places[number]
            is_read = place in read_lists or any(steps[:-1] == place for steps in met if steps)
            if isinstance(node, list) and len(node) > 1 and not is_read:
                self._name(f"{shown(place)} (a list of {len(node)})")
            for name in node if isinstance(node, dict) else ():
                step = same_key(name)
                if (index, name) in used or not {(*place, name), (*place, step)}.isdisjoint(met):
                    continue
                if (index, step) != (0, "source") and not self._is_named((index, name), numbers, nodes):
                    unnamed.append((index, name))
        return unnamed

    def _is_named(self, place: _Place, numbers: Sequence[int], nodes: Sequence[Any]) -> bool:
        """Name a value that no column takes, unless a remark tells of it; return False for one that is missing."""
        index, name = place
        steps, value = (*self._places[numbers[index]], name), nodes[index][name]
        if is_missing(value):
            return False
        step = same_key(str(name))
        is_remarked = isinstance(value, str) and (step in TELLING or packed_problem(value))
        if not (is_envelope((*steps[:-1], step)) and is_remarked):
            self._name(shown(steps))
        return True

    def _name(self, path: str) -> None:
        if len(self.unread) < _MOST_UNREAD:
            self.unread[path] = None


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
