"""Read JSON-lines logs, plain, gzip, bzip2 or zstd, nested or flat, into rows.

DuckDB takes the lines apart (`log_query`); only the few that it hands back, because something in them is unusual, are
looked at in Python, to be read after all or refused with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.readers.log_lines import LONGEST_LINE, SCHEMA, LogLines
from data_prep.readers.log_paths import LogPaths, same_key
from data_prep.readers.log_query import LogQuery
from data_prep.rows.cells import add_unread_times, parse_columns
from data_prep.rows.columns import COLUMNS, ROWS, TEXTS
from data_prep.rows.dialogue import parse_json, unpacked
from data_prep.rows.remarks import Remarks
from data_prep.rows.timestamps import read_timestamps
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 16_384
_KEYS = re.compile(rb'"((?:[^"\\\n]|\\+u[0-9a-fA-F]{4}){1,80})\\*"\s*:')
_ESCAPES, _ONE_BACKSLASH = re.compile(r"\\+u"), r"\\u"
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}


def read_logs(
    path: Path, settings: SourceSettings, required: Sequence[str], notes: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a row for each line that is not blank, in order; `row` is the number of the line.

    Every column is what the first of its paths that is not empty holds (`settings.log_paths`, `columns.LOG_PATHS`,
    and in lines that are flat any name of `columns.ALIASES`). What is special to logs, beyond `cells.parse_columns`:

    - `source` is production_log for nested lines and those whose query is at a path of the tenant's own, test_set for
      flat ones; a flat field `source` that says one of the two counts.
    - A profile or summary that is an object is kept as JSON.
    - A file that is damaged from some place on gives the lines before it, and one refused row for the rest.
    - Keys count however they are spelled (`log_paths.same_key`); of a key that is twice in an object the first counts.
    - JSON that is packed into a text is unpacked: the whole line, an object in it, the hits, the dialogue.
    - Other encodings than UTF-8 are understood (`encodings.Utf8Lines`), and NULs before a line are passed over.

    Args:
        notes: takes a line for which encodings were taken, and for NULs passed over.
        required: columns that some line must hold; texts only, what a log computes or need not have is not asked for.

    Raises:
        BadInput: there is no JSON object a line, no line holds a required text, or the settings name no proper path.
    """
    paths = LogPaths(settings)
    lines = LogLines(path)
    with closing(lines), duckdb.connect() as db:
        sample = _check(path, lines, paths, required)
        db.register("lines", pa.RecordBatchReader.from_batches(SCHEMA, iter(lines)))
        try:
            for found in _joined(db.sql(LogQuery(paths, sample).sql).to_arrow_reader(_BATCH_ROWS)):
                batch = _rows(found, str(path), paths, lines.too_long)
                if batch.num_rows:
                    yield batch
        except (duckdb.Error, OSError) as error:  # the latter while the stream runs
            raise BadInput(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    if notes is not None:
        notes += [f"{path}: {said}" for said in lines.notes]
    if lines.damage:
        rest, problem = [lines.last_row + 1], [lines.damage]
        yield parse_columns({}, file=str(path), sheet="", rows=rest, source="production_log", refused=problem)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in fewer batches, none much larger than it must be."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.num_rows for b in waiting) >= _BATCH_ROWS or sum(b.nbytes for b in waiting) >= _BATCH_BYTES:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _check(path: Path, lines: LogLines, paths: LogPaths, required: Sequence[str]) -> dict[str, object]:
    """Return the first object among the first lines of the file."""
    sample = _first_object(path, lines)
    named = _names(lines.head)
    for name in required:
        if name in TEXTS and not any(same_key(key) in named for key in paths.keys(name)):
            raise BadInput(
                f"{path}: no line has {name}: nothing at {paths.looked_at(name)} (the tenant setting "
                f"sources.log_paths.{name} can name other places)"
            )
    return sample


def _first_object(path: Path, lines: LogLines) -> dict[str, object]:
    head = lines.head_lines()
    first = "every line is blank" if head else ""
    for number, line in enumerate(head, start=1):
        if not line.strip():
            continue
        value, problem = _parse(line)
        if not problem:
            return value
        if first == "every line is blank":
            if problem.startswith("not JSON") and line.lstrip().startswith(b"["):
                raise BadInput(f"{path}: one JSON list; expected one object a line (jq -c '.[]' makes that of it)")
            first = f"line {number}: {problem}"
    if first:
        raise BadInput(f"{path}: {lines.damage or f'expected one JSON object a line; {first}'}")
    return {}


def _names(text: bytes) -> set[str]:
    """Return what counts (`same_key`) of every key in the text, of JSON that is packed into texts too."""
    keys = {key for key in _KEYS.findall(text)}
    return {same_key(_unescaped(key.decode("utf-8", "replace"))) for key in keys}


def _unescaped(key: str) -> str:
    try:
        return str(json.loads(f'"{_ESCAPES.sub(_ONE_BACKSLASH, key)}"'))
    except ValueError:
        return key


def _rows(found: pa.RecordBatch, file: str, paths: LogPaths, too_long: set[int]) -> pa.RecordBatch:
    """Make typed rows of what the query found; lines that it doubts are read in Python."""
    count = found.num_rows
    columns = {name: found.column(name) for name in found.schema.names}
    written = columns.pop("written")
    remarks: Remarks = {}
    if written.null_count < count:
        times = read_timestamps(written.drop_null())
        add_unread_times(written, pc.replace_with_mask(written, written.is_valid(), times), remarks)
        columns["timestamp"] = pc.replace_with_mask(columns["timestamp"], written.is_valid(), times)
    texts = pa.repeat(pa.scalar(""), count)
    columns |= {"file": pa.repeat(pa.scalar(file), count), "sheet": texts, "refused": texts}
    columns["slices"] = pa.repeat(pa.scalar([], ROWS.field("slices").type), count)
    columns["remarks"] = pa.array([remarks.get(n, []) for n in range(count)], ROWS.field("remarks").type)
    doubtful = columns["line"].is_valid()
    batch = pa.RecordBatch.from_arrays([columns[name] for name in ROWS.names], schema=ROWS)
    if columns["line"].null_count == count:
        return batch
    raw = columns["line"].drop_null().cast(pa.binary()).to_pylist()
    numbers = columns["row"].filter(doubtful).to_pylist()
    looked_at = _look_at(dict(zip(numbers, raw, strict=True)), file, paths, too_long)
    order = np.arange(count)
    order[doubtful.to_numpy(zero_copy_only=False)] = -1
    found_at = np.searchsorted(columns["row"].to_numpy(), looked_at.column("row").to_numpy())
    order[found_at] = count + np.arange(looked_at.num_rows)
    return pa.concat_batches([batch, looked_at]).take(pa.array(order[order >= 0]))


def _look_at(lines: Mapping[int, bytes], file: str, paths: LogPaths, too_long: set[int]) -> pa.RecordBatch:
    """Return the rows of `lines` (number → line); blank ones are none."""
    rows, refused, sources = [], [], []
    cells: dict[str, list[object]] = {name: [] for name in COLUMNS}
    for number, line in lines.items():
        if not line.strip() and number not in too_long:
            continue
        value, problem = _parse(line)
        if number in too_long:
            problem = f"the line is longer than {LONGEST_LINE >> 20} MiB"
        found = {} if problem else paths.raw_cells(value)
        problem = problem or _prepare(found)
        if not problem and "original_query" not in found:
            problem = f"original_query: nothing at {paths.looked_at('original_query')}"
        for name in COLUMNS:
            cells[name].append(None if problem else found.get(name))
        source = value.get("source")
        shape = "production_log" if not value or paths.is_log(value) else "test_set"
        sources.append(source if source in ("production_log", "test_set") else shape)
        rows.append(number)
        refused.append(problem)
    batch = parse_columns(cells, file=file, sheet="", rows=rows, source="production_log", refused=refused)
    return batch.set_column(ROWS.get_field_index("source"), ROWS.field("source"), pa.array(sources, pa.string()))


def _parse(line: bytes) -> tuple[dict[str, object], str]:
    """Return the object on `line` and "", or why there is none."""
    try:
        value = parse_json(line.decode().strip("\ufeff\0 \t\r\n"))
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


def _prepare(cells: dict[str, object]) -> str:
    """Make texts of what may be one in a log; why the line is refused, "" if it is not."""
    for name, value in cells.items():
        if name not in TEXTS or name == "history_context" or not isinstance(value, dict | list):
            continue
        if name == "recall_results":
            cells[name] = json.dumps(value)
        elif name in ("original_query", "rewritten_query"):
            return f"{name}: expected a text, found {_KINDS[type(value)]}"
        else:
            cells[name] = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return ""
