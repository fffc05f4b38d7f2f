"""JSON in the place of a query or a rewrite, as models answer and services log it → the text that is meant."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.rows.columns import ALIASES
from data_prep.rows.dialogue import parse_json, unpacked
from data_prep.rows.headings import heading_key
from data_prep.rows.remarks import Remarks, remark
from plain_text.thinking import without_thinking

_FENCED = re.compile(r"```[a-zA-Z]*\s*([\[{].*?)\s*```", re.DOTALL)
_BEGINS = re.compile(r"""\{\s*["'}]|\[\s*["{]|"\s*[{\[\\]""")  # a question may begin with a brace
_IS_JSON = re.compile(r"\s*(?:\[\s*[\[{\"]|\{\s*\"|\")")
_IN_JSON = re.compile(r"(?:\"\s*:|[\[,{])\s*$")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
_BRACES = 8  # that are tried
COLUMNS = ("original_query", "rewritten_query")
_NAMES = {
    name: {heading_key(key) for key in (name, "text", *(alias for alias, column in ALIASES.items() if column == name))}
    for name in COLUMNS
}


def told_by(text: str) -> str:
    """Return a model's text without its thinking, and of JSON within fences the JSON alone."""
    told = without_thinking(text)
    fenced = _FENCED.search(told)
    return fenced[1] if fenced else told


def behind_words(text: str) -> tuple[dict[str, Any] | None, str]:
    """Return the object at the end of a logger's line (`12:00:01 INFO - {…}`), as JSON or a Python literal, and the
    words before it; None where there is none, or what precedes it may be JSON itself."""
    text = _COLOURS.sub("", text)
    if _IS_JSON.match(text):
        return None, ""
    for begins in islice(re.finditer(r"\{", text), _BRACES):
        words, rest = text[: begins.start()].strip(), text[begins.start() :].strip()
        if _IN_JSON.search(words) or not rest.endswith("}"):
            continue
        value = unpacked(rest)
        if isinstance(value, dict) and value:
            return value, words
    return None, ""


def packed_problem(text: str) -> str:
    """Return why a text that begins as JSON is none; "" for other texts."""
    value = unpacked(text)
    inner = (value if isinstance(value, str) else text).strip("\ufeff \t\r\n\0")
    if not _BEGINS.match(inner):
        return ""
    try:
        parse_json(inner)
    except json.JSONDecodeError as error:
        return f"{error.msg}: character {error.pos + 1} of {len(inner)}"
    except (ValueError, RecursionError):
        return "a number too long, or nested too deeply"
    return ""


def without_json(cells: Sequence[object] | pa.Array, name: str, found: dict[int, str], remarks: Remarks) -> object:
    """Return `cells` of a query or a rewrite with the text that JSON in its place holds under a name of the column;
    `found` takes, by index, why other JSON is no text."""
    if isinstance(cells, pa.Array):
        doubtful = pc.indices_nonzero(pc.fill_null(pc.match_substring(cells, "{"), False)).to_pylist()
    else:
        doubtful = [index for index, cell in enumerate(cells) if isinstance(cell, str) and "{" in cell]
    if not doubtful:
        return cells
    texts = cells.to_pylist() if isinstance(cells, pa.Array) else list(cells)
    for index in doubtful:
        told = told_by(texts[index])
        value = unpacked(told)
        if isinstance(value, list) and len(value) == 1 and name == "rewritten_query":  # people ask about lists
            value = value[0]
        if isinstance(value, dict):
            meant = [inner for key, inner in value.items() if heading_key(key) in _NAMES[name]]
            if len(meant) == 1 and isinstance(meant[0], str):
                if without_thinking(texts[index]) != texts[index]:
                    remark(remarks, index, name, ["<think> stripped"])
                texts[index] = meant[0]
                remark(remarks, index, name, ["taken out of JSON"])
            else:
                found[index], texts[index] = "JSON that holds no such text", ""
        elif problem := packed_problem(told):
            found[index], texts[index] = f"JSON that cannot be read ({problem})", ""
    return texts
