"""Read JSON-lines logs, plain, gzip, bzip2 or zstd, nested or flat, into rows.

A line is parsed by msgspec, and by `json` where that refuses it: they differ in what they accept, never in a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.readers.json_documents import DocumentLines, holds_documents
from data_prep.readers.log_lines import LONGEST_LINE, LogLines
from data_prep.readers.log_paths import LogPaths, same_key
from data_prep.readers.log_records import OTHER_SHAPE, SOURCES, LogRecords
from data_prep.readers.log_shapes import LogShapes
from data_prep.rows.cells import Cells, parse_columns, recorded
from data_prep.rows.columns import COLUMNS, ROWS, TEXTS
from data_prep.rows.dialogue import parse_json, unpacked
from data_prep.rows.envelopes import CHATS
from data_prep.rows.missing import spelled
from data_prep.rows.packed_texts import behind_words
from data_prep.rows.recall_cells import Recall
from data_prep.rows.remarks import Remarks
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 16_384
_SHOWN = 60  # characters of words before the JSON
_TIME = re.compile(r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_FILL = ", such as response.choices[0].message.content; python -m data_prep.fill_baseline asks the deployed rewriter"
_NAMED = 12  # keys not read that a note names
_KEYS = re.compile(rb'["\']((?:[^"\'\\\n]|\\+u[0-9a-fA-F]{4}){1,80})\\*["\']\s*:')
_ESCAPES, _ONE_BACKSLASH = re.compile(r"\\+u"), r"\\u"
_AS_JSON = {*TEXTS} - {"history_context", "recall_results"}
_decode = msgspec.json.Decoder().decode
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}


def read_logs(
    path: Path, settings: SourceSettings, required: Sequence[str], notes: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a row for each line that is not blank, in order; `row` is the number of the line.

    Every column is what the first of its places that is not empty holds: `settings.log_paths`, `columns.LOG_PATHS`,
    any name of `columns.ALIASES` in the line itself. What is special to logs, beyond `cells.parse_columns`:

    - `source` is production_log for nested lines and those whose query is at a path of the tenant's own, test_set for
      flat ones; a flat field `source` that says one of the two counts.
    - A profile or summary that is an object is kept as JSON.
    - A file that is damaged from some place on gives the lines before it, and one refused row for the rest.
    - Keys count however they are spelled (`log_paths.same_key`); of a key that is twice in an object the last counts.
    - JSON that is packed into a text is unpacked: the whole line, an object in it, the hits, the dialogue.
    - Other encodings than UTF-8 are understood (`encodings.Utf8Lines`), and NULs before a line are passed over.

    Args:
        notes: takes a line for which encodings were taken, and for NULs passed over.
        required: columns that some line must hold; texts only, what a log computes or need not have is not asked for.

    Raises:
        BadInput: there is no JSON object a line, no line holds a required text, or the settings name no proper path.
    """
    paths = LogPaths(settings)
    lines: LogLines | DocumentLines = LogLines(path)
    with closing(lines):
        if isinstance(lines, LogLines) and holds_documents(lines):
            lines = DocumentLines(lines, path)
        _check(path, lines, paths, required)
        reader = _LineReader(str(path), paths, lines.too_long)
        for first, numbered in _batches(lines):
            batch = reader.read(first, numbered)
            if batch.num_rows:
                yield batch
    if notes is not None:
        notes += [f"{path}: {said}" for said in (*lines.notes, *reader.notes())]
    if lines.damage:
        rest, problem = [lines.last_row + 1], [lines.damage]
        yield parse_columns({}, file=str(path), sheet="", rows=rest, source="production_log", refused=problem)


def _batches(lines: Iterable[tuple[int, list[bytes]]]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the same lines in larger batches."""
    first, waiting, size = 1, list[bytes](), 0
    for start, numbered in lines:
        first = first if waiting else start
        waiting += numbered
        size += sum(map(len, numbered))
        if len(waiting) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield first, waiting
            waiting, size = [], 0
    if waiting:
        yield first, waiting


def _check(path: Path, lines: LogLines | DocumentLines, paths: LogPaths, required: Sequence[str]) -> None:
    _look_for_object(path, lines)
    named = _names(lines.head)
    for name in required:
        if name == "original_query" and not named.isdisjoint(CHATS):
            continue  # the last turn may give it
        if name in TEXTS and not any(same_key(key) in named for key in paths.keys(name)):
            raise BadInput(
                f"{path}: no line has {name}: nothing at {paths.looked_at(name)} (the tenant setting "
                f"sources.log_paths.{name} can name other places{_FILL if name == 'rewritten_query' else ''})"
            )


def _look_for_object(path: Path, lines: LogLines | DocumentLines) -> None:
    head = lines.head_lines()
    first = "every line is blank" if head else ""
    for number, line in enumerate(head, start=1):
        if not line.strip():
            continue
        _, problem = _parse(line)
        if not problem or _behind_words(line)[0] is not None:
            return
        if first == "every line is blank":
            first = f"line {number}: {problem}"
    if first:
        raise BadInput(f"{path}: {lines.damage or f'expected one JSON object a line; {first}'}")


def _names(text: bytes) -> set[str]:
    """Return what counts (`same_key`) of every key in the text, of JSON that is packed into texts too."""
    keys = {key for key in _KEYS.findall(text)}
    names = [_unescaped(key.decode("utf-8", "replace")) for key in keys]
    return {same_key(one) for name in names for one in (name, name.rpartition(".")[2])}


def _unescaped(key: str) -> str:
    try:
        return str(json.loads(f'"{_ESCAPES.sub(_ONE_BACKSLASH, key)}"'))
    except ValueError:
        return key


class _LineReader:
    """Makes typed rows of the lines of one file."""

    def __init__(self, file: str, paths: LogPaths, too_long: set[int]):
        self._file, self._too_long = file, too_long
        self._remarks: Remarks = {}
        self._shapes = LogShapes(paths, self._remarks)
        self._words, self._first_words = 0, ""
        self._no_query = f"original_query: nothing at {paths.looked_at('original_query')}"

    def notes(self) -> list[str]:
        """Count the lines with words before their JSON; name the keys that no column takes."""
        words = f"words before the JSON of {self._words} lines passed over ({self._first_words})"
        said = [words] if self._words else []
        first, rest = list(islice(paths := iter(self._shapes.unread), _NAMED)), sum(1 for _ in paths)
        return said + ([f"keys not read: {', '.join(first)}{f' and {rest} more' if rest else ''}"] if first else [])

    def read(self, first: int, lines: Sequence[bytes]) -> pa.RecordBatch:
        """Return the rows of `lines`, numbered from `first`; blank ones are none."""
        cells: list[list[object]] = [[None] * len(lines) for _ in COLUMNS]
        self._remarks.clear()
        rows: list[int] = []
        refused: list[str] = []
        sources: list[str] = []
        hits, recall = cells[COLUMNS.index("recall_results")], Recall()
        runs = _Runs()
        for number, line in enumerate(lines, start=first):
            if records := self._shapes.records:
                try:
                    record = records.decode(line)
                except OTHER_SHAPE:
                    pass
                else:
                    sources.append(_source(records.source(record), records.nested))
                    runs.add(records, len(rows), records.values(record))
                    rows.append(number)
                    refused.append("")
                    found = records.hits(record)
                    recall.add_hits(found) if records.bare_hits and found is not None else recall.add(found)
                    continue
            value, problem = self._parsed(number, line)
            if value is None:
                continue
            nested = not problem and self._shapes.find(value, cells, len(rows))
            sources.append(_source(value.get("source"), nested or not value))
            rows.append(number)
            refused.append(problem)
            # Hits become text at once: a batch of them as objects would be most of the memory.
            cell, hits[len(rows) - 1] = hits[len(rows) - 1], None
            recall.add(cell)
        runs.put(cells)
        # Cells that no row of this batch holds are left to `parse_columns`.
        count = len(rows)
        found = {name: own[:count] for name, own in zip(COLUMNS, cells, strict=True) if own.count(None) < len(own)}
        for index in self._prepare(found, refused):
            recall.forget(index)
        columns: dict[str, Cells | Recall] = {**found, "recall_results": recall}
        batch = parse_columns(
            columns, file=self._file, sheet="", rows=rows, source="", refused=refused, remarks=self._remarks
        )
        return batch.set_column(ROWS.get_field_index("source"), ROWS.field("source"), pa.array(sources, pa.string()))

    def _parsed(self, number: int, line: bytes) -> tuple[dict[str, Any] | None, str]:
        """Return the object on a line and "", or none and why; None for a blank line."""
        try:
            value = _decode(line)
        except (ValueError, RecursionError):
            value = None
        if type(value) is dict:
            return value, ""
        if number in self._too_long:
            return {}, f"the line is longer than {LONGEST_LINE >> 20} MiB"
        if not line.strip():
            return None, ""
        value, problem = _parse(line)
        if not problem:
            return value, ""
        behind, words = _behind_words(line)
        if behind is None:
            return value, problem
        self._words += bool(words)
        self._first_words = self._first_words or words[:_SHOWN]
        return behind, ""

    def _prepare(self, cells: dict[str, list[object]], refused: list[str]) -> list[int]:
        """Make texts of what may be one in a log. Refuse rows without a query, or with an object in its place, and take
        their other cells away; return their indices."""
        unusable: list[int] = []
        for name in ("original_query", "rewritten_query"):
            for index, cell in _objects(cells.get(name, [])):
                refused[index] = refused[index] or f"{name}: expected a text, found {_KINDS[type(cell)]}"
                unusable.append(index)
        asked = cells.get("original_query", [None] * len(refused))
        queries = recorded(asked, "original_query", {})
        none = pc.equal(queries, "") if isinstance(queries, pa.Array) else [cell is None for cell in queries]
        for index in pc.indices_nonzero(pa.array(none)).to_pylist():
            if not refused[index] and not spelled(asked[index]):
                refused[index] = "; ".join((self._no_query, *sorted(self._remarks.get(index, ()))))
                unusable.append(index)
        for index in unusable:
            for column in cells.values():
                column[index] = None
        for name, column in cells.items():
            for index, cell in _objects(column) if name in _AS_JSON else ():
                column[index] = json.dumps(cell, ensure_ascii=False, separators=(",", ":"))
        return unusable


class _Runs:
    """Holds the values of rows that `LogRecords` read, by run of rows of one shape."""

    def __init__(self) -> None:
        self._runs: list[tuple[LogRecords, int, list[tuple[object, ...]]]] = []

    def add(self, records: LogRecords, row: int, values: tuple[object, ...]) -> None:
        if self._runs:
            last, start, rows = self._runs[-1]
            if last is records and start + len(rows) == row:
                rows.append(values)
                return
        self._runs.append((records, row, [values]))

    def put(self, cells: Sequence[list[object]]) -> None:
        """Write the values into the columns."""
        for records, start, rows in self._runs:
            for column, values in zip(records.columns, zip(*rows, strict=True), strict=True):
                cells[column][start : start + len(rows)] = values


def _source(named: object, nested: bool) -> str:
    if named in SOURCES:
        return str(named)
    return "production_log" if nested else "test_set"


def _objects(cells: Sequence[object]) -> list[tuple[int, object]]:
    """Return (index, cell) of the lists and objects among `cells` that are not empty."""
    if not {dict, list} & set(map(type, cells)):
        return []
    return [(index, cell) for index, cell in enumerate(cells) if isinstance(cell, dict | list) and cell]


def _behind_words(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return what `packed_texts.behind_words` finds, and the time of the words where the object has none."""
    value, words = behind_words(line.decode("utf-8", "replace").strip("\ufeff\0 \t\r\n"))
    if value is not None and (time := _TIME.search(words)):
        value.setdefault("ts", time[0])  # the last place that is looked at
    return value, words


def _parse(line: bytes) -> tuple[dict[str, object], str]:
    """Return the object on `line` and "", or why there is none."""
    try:
        value = parse_json(line.decode().strip("\ufeff\0\x1e \t\r\n").removesuffix(","))
        value = unpacked(value) if isinstance(value, str) and value.lstrip().startswith(("{", '"')) else value
    except UnicodeDecodeError:
        return {}, "bytes that are no text"
    except json.JSONDecodeError as error:
        return {}, f"not JSON ({error.msg}: column {error.colno})"
    except (ValueError, RecursionError):
        return {}, "not JSON (a number too long, or nested too deeply)"
    if isinstance(value, dict):
        return value, ""
    return {}, f"expected an object, found {_KINDS.get(type(value), 'a number')}"
