"""Read a file of whole JSON documents (a list, pretty-printed objects, an export of Loki, Elasticsearch or pandas) as
one object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from data_prep.readers.log_lines import LogLines
from data_prep.rows.columns import ALIASES
from data_prep.rows.headings import heading_key
from data_prep.rows.packed_texts import COLUMNS
from reward.records.files import BadInput

_LARGEST = 64 << 20  # bytes: a document is in memory as a whole
_BETWEEN = re.compile(r"[\s,\[\]\ufeff\0\x1e]*")  # a list's own marks among its items too
_LIST = re.compile(r"\[\s*(?:[\[{\]\"]|$)")
_OPENS = re.compile(r"\{\s*$|\{\s*\"(?:[^\"\\]|\\.)*\"\s*:.*[\w\"{\[}\]]$")
_WRAPS = re.compile(
    r"\{\s*\"(?:(?i:streams|status|took|columns|schema|index|records|data|rows|items|hits|code|total)\"|[^\"]*\":\s*\{\"0\":)"
)
_BEGINS = re.compile(r"^[\[{]", re.MULTILINE)
_Wrong = json.JSONDecodeError
_LOOKED_AT, _SHOWN = 50, 200  # lines, characters
_WRAPPERS = ("records", "data", "rows", "items", "logs", "entries", "events", "list")
_QUERY = {heading_key(key) for key, column in ALIASES.items() if column in COLUMNS} | set(map(heading_key, COLUMNS))
_DECODER = json.JSONDecoder(strict=False)


class DocumentLines:
    """Stands in for `LogLines` where a file holds documents: each item is a line, numbered from 1.

    Raises:
        BadInput: the file is too large, or its first item is no JSON.
    """

    def __init__(self, lines: LogLines, path: object):
        data = bytearray()
        for _, some in lines:
            for line in some:
                data += line + b"\n"
            if len(data) > _LARGEST:
                raise BadInput(
                    f"{path}: one JSON document of more than {_LARGEST >> 20} MiB; expected one object a line "
                    "(jq -c '.[]' makes that of a list)"
                )
        self.too_long: set[int] = set()
        self._notes, self.damage = lines.notes, lines.damage
        # What is no text becomes half characters, which refuse their row.
        self._items, problem = _items(data.decode("utf-8", "surrogateescape"))
        if not self._items:
            raise BadInput(f"{path}: {self.damage or f'not JSON ({problem})'}")
        self.damage = self.damage or (f"the JSON ends within an item ({problem})" if problem else "")
        self.last_row = len(self._items)
        self.head = b"\n".join(self._items[:1000])

    @property
    def notes(self) -> list[str]:
        return [*self._notes, "JSON over several lines, or of several rows: row is the number of the item"]

    def head_lines(self) -> list[bytes]:
        return self._items[:1000]

    def close(self) -> None:
        self._items = []

    def __iter__(self) -> Iterator[tuple[int, list[bytes]]]:
        yield 1, self._items


def holds_documents(lines: LogLines) -> bool:
    """Return whether the file is a list, pretty-printed objects, or holds several rows in its first object."""
    head = lines.head_lines()
    texts = [text for line in head[:_LOOKED_AT] or [lines.head] if (text := _text(line))]
    if not texts:
        return False
    first = texts[0].removesuffix(",")
    if not head:  # a very long line
        return bool(_LIST.match(first) or _WRAPS.match(first))
    value = _parsed(first)
    if _LIST.match(first):
        is_begun = texts[0] == "[" or (first != texts[0] and isinstance(_parsed(first[1:]), dict))
        return value is not None or is_begun or not _any_object(texts[1:])
    if value is None:  # the first line of a log may be torn: whole ones follow it
        return bool(_OPENS.match(texts[0])) and len(texts) > 1 and not _any_object(texts[1:])
    return isinstance(value, dict) and _rows(value) is not None


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip("\ufeff\0 \t\r\n")


def _parsed(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _any_object(texts: list[str]) -> bool:
    return any(isinstance(value := _parsed(text.removesuffix(",")), dict) and value for text in texts)


def _items(text: str) -> tuple[list[bytes], str]:
    """Return the rows of all documents in `text`, one line of JSON each, and what is wrong with the rest, "" for
    nothing. After damage reading goes on at the next document that begins a line."""
    found: list[bytes] = []
    place, problem = _between(text, 0), ""
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            said = f"{error.msg}: line {error.lineno} column {error.colno}" if isinstance(error, _Wrong) else "nested"
            again = _BEGINS.search(text, place + 1)
            if not again:
                return found, said
            damaged, place = text[place : again.start()], again.start()
            found.append(" ".join(damaged[:_SHOWN].split()).encode("utf-8", "replace"))
            problem = problem or said
        else:
            rows = _rows(value) if isinstance(value, dict) else None
            found += [json.dumps(row).encode() for row in ([value] if rows is None else rows)]
        place = _between(text, place)
    return found, "" if found else problem or "no item"


def _between(text: str, place: int) -> int:
    match = _BETWEEN.match(text, place)
    return match.end() if match else place


def _rows(value: dict[str, Any]) -> list[object] | None:
    """Return the rows that an object holds; None for one that is a row itself."""
    if any(isinstance(one, str) and heading_key(key) in _QUERY for key, one in value.items()):
        return None
    for read in (_of_loki, _of_pandas, _of_elasticsearch, _of_wrapper):
        rows = read(value)
        if rows is not None:
            return rows
    return None


def _of_loki(value: dict[str, Any]) -> list[object] | None:
    """Read a push (`streams`) or the answer to a query (`data.result`)."""
    data = value.get("data")
    streams = value.get("streams", data.get("result") if isinstance(data, dict) else None)
    if not isinstance(streams, list) or not streams:
        return None
    rows: list[object] = []
    for stream in streams:
        values = stream.get("values") if isinstance(stream, dict) else None
        if not isinstance(values, list) or not all(isinstance(one, list) and len(one) > 1 for one in values):
            return None
        rows += [{"labels": stream.get("stream", {}), "ts": one[0], "line": one[1]} for one in values]
    return rows


def _of_pandas(value: dict[str, Any]) -> list[object] | None:
    """Read `DataFrame.to_json`: split, table, and columns or index with the numbers that rows have by default."""
    data, names = value.get("data"), value.get("columns")
    if isinstance(data, list) and isinstance(names, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, names), row, strict=False)) for row in data]
    if isinstance(data, list) and set(value) == {"schema", "data"}:
        return data
    inner = list(value.values())
    if len(inner) > 0 and all(isinstance(one, dict) and one for one in inner):
        if all(key.isdigit() for key in value):
            return inner
        keys = list(inner[0])
        if all(key.isdigit() for key in keys) and all(list(one) == keys for one in inner):
            return [{name: one[key] for name, one in value.items()} for key in keys]
    return None


def _of_elasticsearch(value: dict[str, Any]) -> list[object] | None:
    hits = value.get("hits")
    found = hits.get("hits") if isinstance(hits, dict) else None
    return found if isinstance(found, list) and all(isinstance(hit, dict) for hit in found) else None


def _of_wrapper(value: dict[str, Any]) -> list[object] | None:
    """Read {"RECORDS": [...]}, {"code": 0, "data": {"items": [...]}}: one list of several objects, the rest scalars."""
    rest = {key: one for key, one in value.items() if isinstance(one, dict | list)}
    if len(rest) != 1:
        return None
    key, inner = next(iter(rest.items()))
    if key.casefold() not in _WRAPPERS:
        return None
    if isinstance(inner, dict):
        return _of_wrapper(inner)
    return inner if len(inner) > 1 and all(isinstance(one, dict) for one in inner) else None
