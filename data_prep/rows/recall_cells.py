"""The hits in a `recall_results` cell: JSON, a Python literal (pandas writes lists so) or broken.

A well-formed cell is decoded and encoded by msgspec, at a few microseconds; only the others cost more.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated, Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.rows.missing import is_missing, is_missing_text, spelled

EXCEL_CELL_LIMIT = 32_767  # UTF-16 units; a program that writes a workbook cuts longer texts
_LITERAL_LIMIT = 1 << 20  # characters; Python's own parser needs hundreds of bytes for each


_Finite: TypeAlias = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class RecordedHit(msgspec.Struct, gc=False):
    """A hit as JSON has it when it is well-formed; other keys are passed over."""

    content: str
    score: _Finite | None = None
    reranker_score: _Finite | None = None
    doc_id: str | None = None


class BareHit(RecordedHit, forbid_unknown_fields=True, gc=False):
    """A hit without other keys."""


class _Hits(msgspec.Struct):
    hits: list[RecordedHit]


class _LooseHit(msgspec.Struct):
    """As other systems write them: numbers as text, ids as numbers."""

    content: str
    score: float | str | None = None
    reranker_score: float | str | None = None
    doc_id: str | int | None = None


_NOTHING = (None, None, None)
_decode = msgspec.json.Decoder(list[RecordedHit]).decode
_decode_loosely = msgspec.json.Decoder(list[_LooseHit]).decode
_encode = msgspec.json.Encoder().encode
# What Python spells otherwise than JSON: strings, a few words, and numbers within their type's name, as
# `np.float64(0.9)`. A string without an end takes all that is left, and nothing is tried twice (`*+`): the time is
# linear for every cell.
_TOKENS = re.compile(
    r"""'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?\Z)|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)"""
    r"""|\b(?:None|True|False|nan|NaN|NaT|NA|inf)\b|<NA>|\b(?:np|numpy)\.(?:True|False)_"""
    r"""|, *dtype=[a-z0-9.]{1,20}|, *(?=[)\]])|\b[0-9]{1,20}\.(?![0-9A-Za-z_])"""
    r"""|\b(?:[A-Za-z_][A-Za-z0-9_]{0,30}\.){0,2}[A-Za-z_][A-Za-z0-9_]{0,30}\(|[()]""",
    re.DOTALL,
)
_ONE_VALUE = re.compile(
    r"(?:np\.|numpy\.|torch\.|decimal\.)?(?:(?:float|int|uint|bool|str)\w*|long\w+|Decimal|array|tensor)\("
)
_QUOTES = re.compile(r"\\(.)|\"", re.DOTALL)
_EXACT = 2**53  # the largest float below which every whole number is one
_WORDS = (
    {"np.True_": "true", "numpy.True_": "true", "np.False_": "false", "numpy.False_": "false"}
    | {"True": "true", "False": "false"}
    | dict.fromkeys(("None", "nan", "NaN", "NaT", "NA", "<NA>"), "null")
    | {"inf": "Infinity"}
)


@dataclass
class Recall:
    """The hits of a column, one entry a row.

    Args:
        texts: JSON lists of `reward.records.sample.Hit`, as UTF-8; b"" where nothing was recorded or it was cut off.
        counts: number of hits; None where nothing was recorded.
        top1, top3: relevance (reranker_score, else score) of the first hit and mean relevance of the first three, a
            missing one counting as 0; None where there is no hit, or the first has no score.
        problems: index → why the cell cannot be used.
        missing: index → how a cell without hits spells that.
    """

    texts: list[bytes] = field(default_factory=list)
    counts: list[int | None] = field(default_factory=list)
    top1: list[float | None] = field(default_factory=list)
    top3: list[float | None] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)

    def add(self, cell: object, scored: bool = True) -> None:
        """Read the hits of one more row; of those that are not `scored` neither count nor relevance is wanted."""
        hits: list[RecordedHit] | None = None
        text = b""
        if bool(cell) if isinstance(cell, str | bytes) else isinstance(cell, list) or not is_missing(cell):
            try:
                if isinstance(cell, list):
                    hits = msgspec.convert({"hits": cell}, _Hits).hits
                else:
                    # encoded here: a str keeps the encoding that msgspec asks it for, and so takes twice the memory
                    hits = _decode(cell.encode() if isinstance(cell, str) else cell)  # type: ignore[arg-type]
                text = _encode(hits)
            except (ValueError, TypeError, RecursionError):  # no JSON, not of that shape, or half a character
                try:
                    hits = _read_slowly(cell)
                    text = b"" if hits is None else _encode(hits)
                except ValueError as problem:
                    hits, self.problems[len(self.texts)] = None, str(problem)
        if not text and (written := spelled(cell.decode(errors="replace") if isinstance(cell, bytes) else cell)):
            self.missing[len(self.texts)] = written
        count, top1, top3 = _relevance(hits) if scored and hits is not None else _NOTHING
        self.texts.append(text)
        self.counts.append(count)
        self.top1.append(top1)
        self.top3.append(top3)

    def add_hits(self, hits: Sequence[RecordedHit]) -> None:
        """Take the hits of one more row."""
        count, top1, top3 = _relevance(hits)
        self.texts.append(_encode(hits))
        self.counts.append(count)
        self.top1.append(top1)
        self.top3.append(top3)

    def column(self) -> pa.Array:
        """Return `texts` as Arrow strings. They are not checked again: that takes ten times as long."""
        offsets = array("i", accumulate(map(len, self.texts), initial=0))
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(self.texts))]
        return pa.Array.from_buffers(pa.string(), len(self.texts), buffers)

    def forget(self, index: int) -> None:
        """Take the hits of a row away."""
        self.texts[index], self.counts[index] = b"", None
        self.top1[index] = self.top3[index] = None
        self.problems.pop(index, None)
        self.missing.pop(index, None)


def read_recall(cells: Sequence[object] | pa.Array, scored: Sequence[bool]) -> Recall:
    """Read the hits of each cell: text (str or UTF-8), a list of dicts, or None. Never raise for what a cell holds.

    Args:
        scored: of which rows counts and relevances are wanted; the others' are None.
    """
    values: Sequence[Any] = cells.cast(pa.binary()).to_pylist() if isinstance(cells, pa.Array) else cells
    found = Recall()
    for cell, wanted in zip(values, scored, strict=True):
        found.add(cell, wanted)
    return found


def _relevance(hits: Sequence[RecordedHit]) -> tuple[int, float | None, float | None]:
    """Number of hits, relevance of the first, mean relevance of the first three."""
    total, first, count = 0.0, None, 0
    for hit in hits[:3]:
        score = hit.score if hit.reranker_score is None else hit.reranker_score
        if count == 0:
            if score is None:
                break
            first = score
        total += score or 0.0
        count += 1
    if first is None:
        return len(hits), None, None
    mean = total / count
    return len(hits), first, mean if math.isfinite(mean) else None


def _tightened(hits: list[_LooseHit]) -> list[RecordedHit]:
    return [
        RecordedHit(
            hit.content,
            _score("score", hit.score),
            _score("reranker_score", hit.reranker_score),
            _doc_id(hit.doc_id),
        )
        for hit in hits
    ]


def _read_slowly(cell: object) -> list[RecordedHit] | None:
    value = cell
    if isinstance(cell, bytes | str):
        text = cell.decode(errors="replace") if isinstance(cell, bytes) else cell
        if is_missing_text(text):
            return None
        try:
            if text.lstrip().startswith('[{"'):
                return _tightened(_decode_loosely(text))
        except (ValueError, RecursionError):
            pass
        spelt = _as_json(text)
        try:
            return _tightened(_decode_loosely(spelt))
        except (ValueError, RecursionError):
            value = _parse(text)
        if value is None and is_cut_off(text):
            return None  # the score columns count without it
        if value is None:
            raise ValueError("neither JSON nor a Python literal")
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of hits, found {type(value).__name__}")
    return [_hit(number, hit) for number, hit in enumerate(value, start=1)]


def _parse(text: str) -> object:
    """Parse the value that `text` spells, None for none."""
    try:
        value = json.loads(text, strict=False)  # raw tabs and line breaks are common in exports
        return json.loads(value, strict=False) if isinstance(value, str) else value  # some systems encode it twice
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(_as_json(text), strict=False)
    except (ValueError, RecursionError):
        pass
    if len(text) > _LITERAL_LIMIT or not text.lstrip().startswith(("[", "(")):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a passage is no mistake
            return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def is_cut_off(text: str) -> bool:
    """Whether `text` is as long as a cell of Excel can be: a longer one was cut there."""
    # One below the limit: a character of two units at the end is dropped as a whole.
    return (
        2 * len(text) >= EXCEL_CELL_LIMIT - 1 and len(text.encode("utf-16-le", "replace")) // 2 >= EXCEL_CELL_LIMIT - 1
    )


def count_cut_off(cells: Sequence[object] | pa.Array, rows: pa.RecordBatch) -> int:
    """Count the `recall_results` of raw `cells` that were cut off and are empty in their typed `rows`."""
    empty = pc.and_(pc.equal(rows.column("recall_results"), ""), pc.equal(rows.column("refused"), ""))
    if isinstance(cells, pa.Array):
        texts = cells.filter(empty).to_pylist()
    else:
        texts = [cells[index] for index in pc.indices_nonzero(empty).to_pylist()]
    return sum(isinstance(text, str) and is_cut_off(text) for text in texts)


def _as_json(text: str) -> str:
    """Write Python's strings and words as JSON, tuples as lists, calls as the value or the list of their arguments."""
    closing: list[str] = []

    def write(found: re.Match[str]) -> str:
        token = found.group()
        if token[-1] == "(" and token[0] not in "'\"":
            bare = token != "(" and _ONE_VALUE.fullmatch(token)
            closing.append("" if bare else "]")
            return "" if bare else "["
        if token == ")":
            return closing.pop() if closing else token
        if token[-1] == "." and token[0] not in "'\"":
            return token + "0"
        return "" if token[0] == "," else _json_token(token)

    return _TOKENS.sub(write, text)


def _json_token(text: str) -> str:
    """Write a Python string or word as JSON; what JSON cannot say (`\\v`) stays and is left to Python's own parser."""
    if text in _WORDS:
        return _WORDS[text]
    inner = text[1:-1]
    return f'"{_QUOTES.sub(_json_escape, inner)}"' if '"' in inner or "\\" in inner else f'"{inner}"'


def _json_escape(found: re.Match[str]) -> str:
    if found[1] == "x":
        return "\\u00"
    return "'" if found[1] == "'" else '\\"' if found[1] in (None, '"') else found.group()


def _hit(number: int, hit: object) -> RecordedHit:
    if not isinstance(hit, dict):
        raise ValueError(f"hit {number} is no object but {type(hit).__name__}")
    content, doc_id = hit.get("content"), hit.get("doc_id")
    if not isinstance(content, str):
        raise ValueError(f"hit {number} has no text as its content")
    if doc_id is not None and (isinstance(doc_id, bool) or not isinstance(doc_id, str | int | float)):
        raise ValueError(f"hit {number}: doc_id is neither text nor a number")
    try:
        score, reranker = (_score(name, hit.get(name)) for name in ("score", "reranker_score"))
    except ValueError as problem:
        raise ValueError(f"hit {number}: {problem}") from None
    return RecordedHit(_whole(content), score, reranker, _doc_id(doc_id))


def _doc_id(value: str | int | float | None) -> str | None:
    """Write an id as text: 7.0, which pandas makes of a 7 beside missing ids, is 7; NaN is missing.

    Raises:
        ValueError: a number too large for its digits to be exact.
    """
    if value is None or value != value or (isinstance(value, str) and is_missing_text(value)):
        return None
    if isinstance(value, float):
        if abs(value) > _EXACT:
            raise ValueError(f"doc_id is a rounded number: {value!r}")
        value = int(value) if value.is_integer() else value
    return _whole(str(value))


def _score(name: str, value: object) -> float | None:
    if value is None or value != value or (isinstance(value, str) and is_missing_text(value)):
        return None
    try:
        score = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{name} is not a finite number: {str(value)[:40]!r}")
    return score


def _whole(text: str) -> str:
    """Replace lone surrogates in `text`: systems that count in UTF-16 cut passages in the middle of a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
