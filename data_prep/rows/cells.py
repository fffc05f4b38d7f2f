"""Raw cells of any source → typed rows. What cannot be understood refuses its row, never the file.

Columns go through Arrow's kernels; Python sees only the cells that a vectorised look finds odd.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.rows import packed_texts
from data_prep.rows.columns import ALIASES, COLUMNS, ROWS, SCORES, TEXTS
from data_prep.rows.dialogue import read_dialogue
from data_prep.rows.ids import ROUNDED, number_as_id, scientific
from data_prep.rows.missing import is_missing, spelled, without_missing
from data_prep.rows.recall_cells import Recall, read_recall
from data_prep.rows.remarks import Remarks, remark, remarks_column
from data_prep.rows.timestamps import read_timestamp, read_timestamps
from data_prep.rows.truths import read_truth
from plain_text.marks import BLANKS, bound_marks

_PLAIN_NUMBER = r"^-?[0-9]{1,15}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?$"
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(\s*%)?", re.ASCII | re.IGNORECASE)
_INVISIBLE = r"^[\s\p{Z}\p{Cc}\p{Cf}]*$"  # what normalising leaves nothing of
_SHOWN = 40  # characters of a bad cell that its reason repeats
_PACKED = ("[", "{", '"[', '"{', "(")  # what may hold a list of turns
_COUNT_LIMIT = 2.0**53

Cells: TypeAlias = Sequence[object] | pa.Array
Problems = dict[int, str]  # index in the batch → what is wrong with the cell


@dataclass(frozen=True)
class Table:
    """What kind of table a reader looks for: its headings (`aliases` and the names of `columns`), and what makes typed
    rows of its cells (with the arguments of `parse_columns`)."""

    aliases: Mapping[str, str]
    columns: Sequence[str]
    parse: Callable[..., pa.RecordBatch]


def parse_columns(
    columns: Mapping[str, Cells | Recall],
    *,
    file: str,
    sheet: str,
    rows: Sequence[int] | pa.Array,
    source: str,
    refused: Sequence[str] | None = None,
    remarks: Remarks | None = None,
) -> pa.RecordBatch:
    """Return the rows of `columns.ROWS`, one for each of `rows`, in their order.

    A cell that cannot be understood fills `refused` of its row (`top1_score: not a number: 'abc'`; of several, the
    first in the order of `columns.COLUMNS`) and reads as not recorded. So does an empty original_query.

    - Every column but recall_results: what `missing.is_missing` names (NaN, \\N, #N/A, -, …) is not recorded.
    - Numbers: 0.85, "0.85", "０.８５" and "85%" are the same; "0,85" is refused. Scores of any size pass: some
      rerankers give logits.
    - `success`: TRUE, 是, 1, 成功, 对, yes, … and their opposites.
    - `timestamp`: see `timestamps.read_timestamp`; one that says no moment reads as not recorded.
    - `history_context`: see `dialogue.read_dialogue`.
    - What of a usable row is passed over (a time that is not understood, a turn of an unknown speaker) is in `remarks`.
    - `recall_results`: see `recall_cells`. Its hits give recall_count, top1_score and avg_top3_score where those are
      not recorded.

    Args:
        columns: name of `columns.COLUMNS` → raw cells: Arrow strings, or objects as a reader gives them (text, numbers,
            truth values, dates, lists of hits or of slices); None and "" are empty. Hits may be read already. Other
            names are passed over.
        rows: the row numbers, from 1.
        source: production_log or test_set.
        refused, remarks: reasons found earlier, "" for none, which come first; what was passed over earlier.
    """
    count = len(rows)
    problems: dict[str, Problems] = {name: {} for name in COLUMNS}
    typed: dict[str, pa.Array] = {}
    remarks = {} if remarks is None else remarks
    for name in COLUMNS:
        if name in columns and name != "recall_results":
            cells = recorded(columns[name], name, remarks)
            if name in packed_texts.COLUMNS:
                cells = packed_texts.without_json(cells, name, problems[name], remarks)
            if name == "history_context":
                cells = _dialogues(cells, problems[name], remarks)
            typed[name] = _READERS[name](cells, problems[name])
            if name == "timestamp":
                add_unread_times(cells, typed[name], remarks)
        else:
            typed[name] = _nothing(ROWS.field(name).type, count)
    for index in _where(pc.match_substring_regex(typed["original_query"], _INVISIBLE)):
        problems["original_query"].setdefault(index, "empty")
    if "recall_results" in columns:
        _add_recall(columns["recall_results"], typed, problems["recall_results"], remarks)
    for name, value in (("file", file), ("sheet", sheet), ("source", source)):
        typed[name] = pa.repeat(pa.scalar(value, pa.string()), count)
    typed["row"] = rows.cast(pa.int64()) if isinstance(rows, pa.Array) else pa.array(rows, pa.int64())
    typed["refused"] = _reasons(problems, refused, count)
    typed["remarks"] = remarks_column(remarks, count)
    return pa.RecordBatch.from_arrays([typed[name] for name in ROWS.names], schema=ROWS)


def _add_recall(cells: Cells | Recall, typed: dict[str, pa.Array], found: Problems, remarks: Remarks) -> None:
    names = ("recall_count", "top1_score", "avg_top3_score")
    missing = functools.reduce(pc.or_, (pc.is_null(typed[name]) for name in names)).to_pylist()
    recall = cells if isinstance(cells, Recall) else read_recall(_plain(cells), missing)
    found.update(recall.problems)
    for index, written in recall.missing.items():
        remark(remarks, index, "recall_results", [f"read as not recorded ({written})"])
    typed["recall_results"] = recall.column()
    for name, computed in zip(names, (recall.counts, recall.top1, recall.top3), strict=True):
        typed[name] = pc.coalesce(typed[name], pa.array(computed, typed[name].type))


def _reasons(problems: Mapping[str, Problems], refused: Sequence[str] | None, count: int) -> pa.Array:
    reasons = list(refused or [""] * count)
    for name, found in problems.items():
        for index, problem in found.items():
            reasons[index] = reasons[index] or f"{name}: {problem}"
    return pa.array(reasons, pa.string())


def _nothing(kind: pa.DataType, count: int) -> pa.Array:
    if kind == pa.string():
        return pa.repeat(pa.scalar("", kind), count)
    return remarks_column({}, count) if pa.types.is_list(kind) else pa.nulls(count, kind)


def _plain(cells: Cells) -> Cells:
    """Return Arrow strings, or a list of objects for anything else that Arrow holds."""
    if not isinstance(cells, pa.Array) or pa.types.is_string(cells.type):
        return cells
    return cells.cast(pa.string()) if pa.types.is_large_string(cells.type) else cells.to_pylist()


def recorded(cells: Cells, name: str, remarks: Remarks) -> Cells:
    """Return `cells` with nothing in place of what is missing (`missing.is_missing`); remark on what was written."""
    if isinstance(cells, pa.DoubleArray):
        return pc.if_else(pc.is_finite(cells), cells, None)
    cells = _plain(cells)
    try:
        texts = pc.fill_null(cells if isinstance(cells, pa.Array) else pa.array(cells, pa.string()), "")
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):  # not all of them whole texts
        missing = [is_missing(cell) for cell in cells]
        _remark_missing(cells, [index for index, one in enumerate(missing) if one], name, remarks)
        return [None if one else cell for cell, one in zip(cells, missing, strict=True)]
    present = without_missing(texts)
    if present is not texts:
        _remark_missing(texts, _where(pc.not_equal(texts, present)), name, remarks)
    return present


def _remark_missing(cells: Cells, places: Iterable[int], name: str, remarks: Remarks) -> None:
    for index in places:
        cell = cells[index].as_py() if isinstance(cells, pa.Array) else cells[index]
        if written := spelled(cell):
            remark(remarks, index, name, [f"read as not recorded ({written})"])


def _dialogues(cells: Cells, found: Problems, remarks: Remarks) -> Cells:
    """Return dialogues as lines; texts that hold no list stay as they are."""
    texts = cells.to_pylist() if isinstance(cells, pa.Array) else list(cells)
    changed = False
    for index, cell in enumerate(texts):
        is_text = isinstance(cell, str) and not cell.lstrip("\ufeff \t\r\n").startswith(_PACKED)
        if cell is None or cell == "" or is_text:
            continue
        try:
            dialogue = read_dialogue(cell)
        except ValueError as problem:
            found[index], texts[index] = str(problem), ""
        else:
            texts[index] = dialogue.text
            remark(remarks, index, "history_context", dialogue.passed_over)
        changed = True
    return texts if changed else cells


def add_unread_times(cells: Cells, times: pa.Array, remarks: Remarks) -> None:
    """Remark on every cell that is recorded and says no moment."""
    for index in _where(pc.equal(times, "")):
        cell = cells[index].as_py() if isinstance(cells, pa.Array) else cells[index]
        if not is_missing(cell):
            remark(remarks, index, "timestamp", [f"not understood ({str(cell)[:_SHOWN]})"])


def _where(mask: pa.Array) -> list[int]:
    return pc.indices_nonzero(mask).to_pylist()


def _each(cells: Iterable[object], read: Callable[[Any], object], kind: pa.DataType, found: Problems) -> pa.Array:
    unread: object = [] if pa.types.is_list(kind) else None
    values: list[object] = []
    for index, cell in enumerate(cells):
        try:
            values.append(read(cell))
        except ValueError as problem:
            found[index] = str(problem)
            values.append(unread)
    return pa.array(values, kind)


def _texts(cells: Cells, found: Problems) -> pa.Array:
    cells = _plain(cells)
    try:
        texts = cells if isinstance(cells, pa.Array) else pa.array(cells, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):  # not all of them whole texts
        texts = _each(cells, _text, pa.string(), found)
    return pc.fill_null(texts, "")


def _text(cell: object) -> str:
    if isinstance(cell, str):
        try:
            cell.encode()
        except UnicodeEncodeError:
            raise ValueError("half a character (a lone surrogate)") from None
        return cell
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return str(cell).upper()  # as a workbook shows it
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))  # a workbook knows no integers
    if isinstance(cell, int | float):
        return str(cell)
    if isinstance(cell, date):
        return cell.isoformat()
    raise ValueError(f"expected text, found {type(cell).__name__}")


def _names(cells: Cells, found: Problems) -> pa.Array:
    if not isinstance(cells, pa.Array) and any(type(cell) is float for cell in cells):
        cells = _each(cells, _id, pa.string(), found)
    names = pc.utf8_trim(_texts(cells, found), characters=BLANKS)
    found.update((index, ROUNDED.format(names[index].as_py())) for index in scientific(names))
    return names


def _id(cell: object) -> str:
    return number_as_id(cell) if type(cell) is float and cell == cell else _text(cell)


def _timestamps(cells: Cells, found: Problems) -> pa.Array:
    cells = _plain(cells)
    if not isinstance(cells, pa.Array):
        cells = _texts([cell if type(cell) is str else read_timestamp(cell) for cell in cells], {})
    return read_timestamps(cells)


def _numbers(cells: Cells, found: Problems) -> pa.Array:
    if isinstance(cells, pa.DoubleArray) and pc.all(pc.is_finite(cells)).as_py() is not False:
        return cells
    cells = _plain(cells)
    if not isinstance(cells, pa.Array):
        return _each(cells, _number, pa.float64(), found)
    texts = pc.utf8_trim_whitespace(pc.fill_null(cells, ""))
    plain = pc.match_substring_regex(texts, _PLAIN_NUMBER)
    values = pc.if_else(plain, texts, None).cast(pa.float64())
    odd = pc.indices_nonzero(pc.and_(pc.invert(plain), pc.not_equal(texts, "")))
    if not len(odd):
        return values
    wrong: Problems = {}
    read = _each(texts.take(odd).to_pylist(), _number, pa.float64(), wrong)
    found.update((odd[index].as_py(), problem) for index, problem in wrong.items())
    mask = pc.is_in(pa.array(range(len(texts)), pa.uint64()), odd)
    return pc.replace_with_mask(values, mask, read)


def _number(cell: object) -> float | None:
    if type(cell) is float and cell - cell == 0:  # finite: nearly every number of a workbook
        return cell
    if cell is None or cell == "":
        return None
    text = _text(cell) or str(cell)
    plain = unicodedata.normalize("NFKC", bound_marks(text)).strip(BLANKS)
    match = None if isinstance(cell, bool) else _NUMBER.fullmatch(plain)
    value = float(match[1]) / (100 if match[2] else 1) if match else math.nan
    if plain and not math.isfinite(value):
        raise ValueError(f"not a number: {text[:_SHOWN]!r}")
    return value if plain else None


def _counts(cells: Cells, found: Problems) -> pa.Array:
    values = _numbers(cells, found)
    within = pc.and_(pc.greater_equal(values, 0.0), pc.less(values, _COUNT_LIMIT))
    whole = pc.and_(within, pc.equal(values, pc.floor(values)))
    for index in _where(pc.invert(pc.fill_null(whole, True))):
        found[index] = f"not a count: {values[index].as_py():g}"
    return pc.if_else(whole, values, None).cast(pa.int64())


def _truths(cells: Cells, found: Problems) -> pa.Array:
    def truth(cell: object) -> bool | None:
        return cell if type(cell) is bool else read_truth(_text(cell))

    return _few_values(cells, truth, pa.bool_(), found)


def _slices(cells: Cells, found: Problems) -> pa.Array:
    return _few_values(cells, _slice_names, ROWS.field("slices").type, found)


def _slice_names(cell: object) -> list[str]:
    names = map(_text, cell) if isinstance(cell, list) else _text(cell).replace("，", ",").split(",")
    return [name.strip() for name in names if name.strip()]


def _few_values(cells: Cells, read: Callable[[Any], object], kind: pa.DataType, found: Problems) -> pa.Array:
    """Read the cells of a column that holds few different texts."""
    cells = _plain(cells)
    if isinstance(cells, pa.Array):
        return _by_value(pc.fill_null(cells, ""), read, kind, found)
    return _each(cells, read, kind, found)


def _by_value(texts: pa.Array, read: Callable[[str], object], kind: pa.DataType, found: Problems) -> pa.Array:
    """Call `read` once for each of the few different texts, and return its result for every text."""
    encoded = texts.dictionary_encode()
    wrong: Problems = {}
    meanings = _each(encoded.dictionary.to_pylist(), read, kind, wrong)
    for index in _where(pc.is_in(encoded.indices, pa.array(list(wrong), pa.int32()))) if wrong else ():
        found[index] = wrong[encoded.indices[index].as_py()]
    return meanings.take(encoded.indices)


_READERS: dict[str, Callable[[Cells, Problems], pa.Array]] = {
    **dict.fromkeys(TEXTS, _texts),
    **dict.fromkeys(("query_id", "model", "tenant_id"), _names),
    "timestamp": _timestamps,
    **dict.fromkeys(SCORES, _numbers),
    "recall_count": _counts,
    "success": _truths,
    "slices": _slices,
}


EXPORT = Table(ALIASES, COLUMNS, parse_columns)
