"""The hits in a `recall_results` cell: JSON, a Python literal (pandas writes lists so) or broken.

A well-formed cell is decoded and encoded by msgspec, at a few microseconds; only the others cost more.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

EXCEL_CELL_LIMIT = 32_767  # characters; a program that writes a workbook cuts longer texts
_LITERAL_LIMIT = 1 << 20  # characters; Python's own parser needs hundreds of bytes for each


class _Hit(msgspec.Struct, gc=False):
    content: str
    score: float | None = None
    reranker_score: float | None = None
    doc_id: str | None = None


class _LooseHit(msgspec.Struct):
    """As other systems write them: numbers as text, ids as numbers."""

    content: str
    score: float | str | None = None
    reranker_score: float | str | None = None
    doc_id: str | int | None = None


_decode = msgspec.json.Decoder(list[_Hit]).decode
_decode_loosely = msgspec.json.Decoder(list[_LooseHit]).decode
_encode = msgspec.json.Encoder().encode
# What Python spells otherwise than JSON: strings and three words. A string without an end takes all that is left, and
# nothing is tried twice (`*+`): the time is linear for every cell.
_TOKENS = re.compile(
    r"""'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?\Z)|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|\b(?:None|True|False)\b""",
    re.DOTALL,
)
_QUOTES = re.compile(r"\\(.)|\"", re.DOTALL)
_NOTHING = ("", "null", "none", "nan")
_WORDS = {"None": "null", "True": "true", "False": "false"}


@dataclass
class Recall:
    """The hits of a column, one entry a row.

    Args:
        texts: JSON lists of `reward.records.sample.Hit`, as UTF-8; b"" where nothing was recorded or it was cut off.
        counts: number of hits; None where nothing was recorded.
        top1, top3: relevance (reranker_score, else score) of the first hit and mean relevance of the first three, a
            missing one counting as 0; None where there is no hit, or the first has no score.
        problems: index → why the cell cannot be used.
    """

    texts: list[bytes] = field(default_factory=list)
    counts: list[int | None] = field(default_factory=list)
    top1: list[float | None] = field(default_factory=list)
    top3: list[float | None] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


def read_recall(cells: Sequence[object] | pa.Array, scored: Sequence[bool]) -> Recall:
    """Read the hits of each cell: text (str or UTF-8), a list of dicts, or None. Never raise for what a cell holds.

    Args:
        scored: of which rows counts and relevances are wanted; the others' are None.
    """
    values: Sequence[Any] = cells.cast(pa.binary()).to_pylist() if isinstance(cells, pa.Array) else cells
    found = Recall()
    nothing = (None, None, None)
    for index, (cell, wanted) in enumerate(zip(values, scored, strict=True)):
        hits: list[_Hit] | None = None
        if cell or isinstance(cell, list | dict):
            try:
                # encoded here: a str keeps the encoding that msgspec asks it for, and so takes twice the memory
                encoded: Any = cell.encode() if isinstance(cell, str) else cell
                hits = _decode(encoded)
            except (ValueError, TypeError, RecursionError):  # no JSON, not of that shape, or half a character
                try:
                    hits = _read_slowly(cell)
                except ValueError as problem:
                    found.problems[index] = str(problem)
        found.texts.append(b"" if hits is None else _encode(hits))
        count, top1, top3 = _relevance(hits) if wanted and hits is not None else nothing
        found.counts.append(count)
        found.top1.append(top1)
        found.top3.append(top3)
    return found


def _relevance(hits: Sequence[_Hit]) -> tuple[int, float | None, float | None]:
    """Number of hits, relevance of the first, mean relevance of the first three."""
    scores = [hit.score if hit.reranker_score is None else hit.reranker_score for hit in hits[:3]]
    if not scores or scores[0] is None:
        return len(hits), None, None
    mean = sum([score or 0.0 for score in scores]) / len(scores)
    return len(hits), scores[0], mean if math.isfinite(mean) else None


def _tightened(hits: list[_LooseHit]) -> list[_Hit]:
    return [
        _Hit(
            hit.content,
            _score("score", hit.score),
            _score("reranker_score", hit.reranker_score),
            None if hit.doc_id is None else str(hit.doc_id),
        )
        for hit in hits
    ]


def _read_slowly(cell: object) -> list[_Hit] | None:
    value = cell
    if isinstance(cell, bytes | str):
        text = cell.decode(errors="replace") if isinstance(cell, bytes) else cell
        if text.strip().lower() in _NOTHING:
            return None
        try:
            if text.lstrip().startswith('[{"'):
                return _tightened(_decode_loosely(text))
            return _tightened(_decode_loosely(_TOKENS.sub(_json_token, text)))
        except (ValueError, RecursionError):
            value = _parse(text)
        if value is None and len(text) >= EXCEL_CELL_LIMIT:
            return None  # cut off: the score columns count without it
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
        return json.loads(_TOKENS.sub(_json_token, text), strict=False)
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


def _json_token(token: re.Match[str]) -> str:
    """Write a Python string or word as JSON; what JSON cannot say (`\\v`) stays and is left to Python's own parser."""
    text = token.group()
    if text in _WORDS:
        return _WORDS[text]
    inner = text[1:-1]
    return f'"{_QUOTES.sub(_json_escape, inner)}"' if '"' in inner or "\\" in inner else f'"{inner}"'


def _json_escape(found: re.Match[str]) -> str:
    if found[1] == "x":
        return "\\u00"
    return "'" if found[1] == "'" else '\\"' if found[1] in (None, '"') else found.group()


def _hit(number: int, hit: object) -> _Hit:
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
    return _Hit(_whole(content), score, reranker, None if doc_id is None else _whole(str(doc_id)))


def _score(name: str, value: object) -> float | None:
    if value is None or value == "":
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
