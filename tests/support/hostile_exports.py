"""Exports that something went wrong with: seeded mutants of good workbooks, CSV files and logs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import xlsxwriter

from data_prep.bvt.row import EXPORT_COLUMNS

ROWS = 24
BOMB = 300 << 20  # bytes, unpacked

_DEEP_JSON = "[" * 100_000
_TEXTS = [
    "=1/0",
    '=HYPERLINK("http://example.com","点")',
    "=cmd|' /C calc'!A0",
    "@SUM(A1:A9)",
    "长" * 32_767,
    "a" * 32_767,
    '[{"content": "' + "长" * 40_000,
    "".join(map(chr, range(32))) + "\x7f\x85",
    "_xD800_",
    "\u202e\u200b\ufeff‮",
    "👩‍👩‍👧‍👦" * 500,
    "e" + "\u0301" * 5_000,
    "\ufffe\uffff",
    "NaN",
    "-inf",
    "1e999",
    "9" * 5_000,
    "1/2",
    "#N/A",
    "#DIV/0!",
    _DEEP_JSON,
    '{"a":' * 30_000,
    "(" * 5_000 + ")" * 5_000,
    "[" + "1," * 20_000 + "]",
    '[{"content": "x", "score": NaN, "reranker_score": 1e999}]',
    '[{"content": null, "score": "高"}, 1, null, []]',
    "[{'content': __import__('os').getcwd()}]",
    "9**9**9",
    "' OR 1=1; DROP TABLE rows; --",
    "${jndi:ldap://example.com}{{7*7}}<script>",
    "13812345678 " * 1_000,
    "2026-13-45T99:99:99",
    "\r\n\r\n\t\0".replace("\0", ""),
]
_NUMBERS: list[Any] = [1e308, -1e308, 5e-324, -0.0, 2**53 + 1, -1, 0.1 + 0.2, True, False]
_JSON_VALUES: list[Any] = [*_TEXTS, *_NUMBERS, None, [], {}, [[[]]], {"a": {"b": []}}, 10**400, "\ud800", "\0"]

Mutator = Callable[[random.Random, Path], None]


def good_row(number: int) -> dict[str, Any]:
    hits = [{"content": f"鱼油第{number}款用法{n}", "score": 0.5, "reranker_score": 0.9 - n / 10} for n in range(3)]
    return {
        "original_query": f"第{number}款鱼油怎么吃才能有{'更' * (number % 5)}好的效果",
        "user_profile": "35岁女性，会计" if number % 2 else "",
        "history_summary": "",
        "rewritten_query": f"鱼油 第{number}款 用法用量",
        "recall_results": json.dumps(hits, ensure_ascii=False),
        "recall_count": 3,
        "top1_score": 0.9,
        "avg_top3_score": 0.8,
        "success": True,
    }


def write_mutants(folder: Path, seed: int, count: int) -> list[Path]:
    """`count` files in `folder`, every kind of mutant in turn; the same seed gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        name, suffix, mutate = MUTATORS[number % len(MUTATORS)]
        path = folder / f"{number:04d}_{name}{suffix}"
        mutate(random.Random(f"{seed} {number}"), path)
        files.append(path)
    return files


def write_bombs(folder: Path) -> list[Path]:
    """A few files that unpack to `BOMB` bytes, or say that they do not."""
    folder.mkdir(parents=True, exist_ok=True)
    declared, lying = folder / "declared.xlsx", folder / "lying.xlsx"
    book = _workbook([good_row(n) for n in range(3)])
    sheet = _parts(book)["xl/worksheets/sheet1.xml"]
    bomb = sheet.replace(b"<sheetData>", b"<sheetData>" + b" " * BOMB)
    declared.write_bytes(_with_part(book, "xl/worksheets/sheet1.xml", bomb))
    data = bytearray(declared.read_bytes())
    for place in _places(bytes(data), len(bomb).to_bytes(4, "little")):
        data[place : place + 4] = len(sheet).to_bytes(4, "little")
    lying.write_bytes(data)
    strings = folder / "same_text.xlsx"
    strings.write_bytes(_with_part(book, "xl/sharedStrings.xml", _shared_strings(200, 200_000)))
    laughs = folder / "laughs.xlsx"
    laughs.write_bytes(_with_part(book, "xl/workbook.xml", _laughs(_parts(book)["xl/workbook.xml"])))
    padded = folder / "padded.xlsx"  # so that all of it together unpacks to a hundred times its size only
    cells = b"<row>" + b"<c><v>1</v></c>" * 16_000 + b"</row>"
    many = sheet.replace(b"</sheetData>", cells * (BOMB // len(cells)) + b"</sheetData>")
    padded.write_bytes(_with_part(book, "xl/worksheets/sheet1.xml", many))
    with zipfile.ZipFile(padded, "a") as parts:
        parts.writestr("xl/media/a.bin", random.Random(0).randbytes(BOMB // 100))
    one_line, blank_lines, then = (folder / name for name in ("one_line.jsonl.gz", "blank.log.gz", "then.jsonl.zst"))
    with gzip.open(one_line, "wb", compresslevel=1) as out:
        out.write(b'{"original_query": "')
        for _ in range(BOMB >> 20):
            out.write(b"a" * (1 << 20))
    with gzip.open(blank_lines, "wb", compresslevel=1) as out:
        for _ in range(BOMB >> 20):
            out.write(b"\n" * (1 << 20))
    with pa.CompressedOutputStream(str(then), "zstd") as out:
        out.write("".join(json.dumps(good_row(n)) + "\n" for n in range(5)).encode())
        for _ in range(BOMB >> 20):
            out.write(b"[" * (1 << 20))
    return [declared, lying, strings, laughs, padded, one_line, blank_lines, then]


def _workbook(rows: list[dict[str, Any]]) -> bytes:
    held = io.BytesIO()
    book = xlsxwriter.Workbook(held, {"in_memory": True, "nan_inf_to_errors": True, "strings_to_urls": False})
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, EXPORT_COLUMNS)
    for number, row in enumerate(rows, start=1):
        for place, value in enumerate(row.values()):
            if isinstance(value, str):
                value = value[:32_767]
            sheet.write(number, place, value)  # a text that begins with = becomes a formula
    book.close()
    return held.getvalue()


def _parts(book: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(book)) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def _with_part(book: bytes, name: str, content: bytes | None) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        for part, old in _parts(book).items():
            new = content if part == name else old
            if new is not None:
                out.writestr(part, new)
    return held.getvalue()


def _places(data: bytes, wanted: bytes) -> list[int]:
    found, place = [], data.find(wanted)
    while place >= 0:
        found.append(place)
        place = data.find(wanted, place + 1)
    return found


def _shared_strings(count: int, length: int) -> bytes:
    items = b"<si><t>" + b"a" * length + b"</t></si>"
    return b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">' + items * count + b"</sst>"


def _laughs(book: bytes) -> bytes:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE workbook [<!ENTITY a0 "ha">{entities}]>'.encode()
    return head + book.partition(b"?>")[2].replace(b'name="Sheet1"', b'name="&a9;"')


def _flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 3, 20, 200))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _hostile_rows(chance: random.Random, values: list[Any]) -> list[dict[str, Any]]:
    rows = [good_row(number) for number in range(ROWS)]
    for _ in range(chance.choice((1, 5, 40))):
        chance.choice(rows)[chance.choice(EXPORT_COLUMNS)] = chance.choice(values)
    return rows


def _tampered_part(chance: random.Random, path: Path) -> None:
    book = _workbook([good_row(number) for number in range(ROWS)])
    name = chance.choice(list(_parts(book)))
    part = _parts(book)[name]
    deep = b"<c>" * 50_000
    content = chance.choice(
        [
            None,
            b"",
            chance.randbytes(300),
            _flip(chance, part),
            _cut(chance, part),
            part.replace(b"<sheetData>", b"<sheetData>" + deep),
            part.replace(b"<t>", b"<t>&#xD800;&#0;&#x1F600;", 3),
            part.replace(b'r="A', b'r="XFD', 5).replace(b'r="B', b'r="ZZZZ', 5),
            part.replace(b"<v>", b"<v>9", 20),
            part.replace(b'<row r="2"', b'<row r="1048577"').replace(b'<row r="3"', b'<row r="4294967296"'),
            part.replace(b'<dimension ref="', b'<dimension ref="A1:XFD1048576" x="'),
            part.replace(b"</sheetData>", b'</sheetData><mergeCells><mergeCell ref="A2:XFD1048576"/></mergeCells>'),
        ]
    )
    path.write_bytes(_with_part(book, name, content))


def _csv(rows: list[dict[str, Any]]) -> bytes:
    held = io.StringIO(newline="")
    out = csv.writer(held)
    out.writerow(EXPORT_COLUMNS)
    out.writerows(row.values() for row in rows)
    return held.getvalue().encode("utf-8", "surrogatepass")


def _dialect(chance: random.Random) -> bytes:
    """CSV with backslashes, joined, with cells too many or left out, and quotes that are never closed."""
    rows = _hostile_rows(chance, [*_TEXTS, '"', "\\", '\\"', 'a"b\\', '"\n,"'])
    held = io.StringIO(newline="")
    how = chance.choice(({"doublequote": False, "escapechar": "\\"}, {"quoting": csv.QUOTE_ALL}, {"delimiter": "\t"}))
    out = csv.writer(held, lineterminator=chance.choice(("\n", "\r\n", "\r")), **how)
    for number, row in enumerate(rows):
        if number in (0, chance.randrange(len(rows))):
            out.writerow(EXPORT_COLUMNS)
        cells = [*row.values()]
        out.writerow(chance.choice((cells, cells, cells, [*cells, ""], cells[: chance.randrange(10)])))
    text = held.getvalue()
    for _ in range(chance.choice((0, 1, 5))):
        place = chance.randrange(len(text))
        text = text[:place] + chance.choice('"\\,\n\ufeff') + text[place:]
    return text.encode("utf-8", "surrogatepass")


def _odd_sheet(chance: random.Random, path: Path) -> None:
    """A sheet without references, with a stray cell, joined with itself, or of XML that is written otherwise."""
    book = _workbook(_hostile_rows(chance, _CELLS))
    name = "xl/worksheets/sheet1.xml"
    sheet = _parts(book)[name]
    stray = b'<row r="%d"><c r="XFD%d"><v>1</v></c></row></sheetData>' % (
        (number := chance.randrange(90, 1 << 20)),
        number,
    )
    top, _, below = sheet.partition(b'<row r="2"')
    changes = [
        re.sub(rb'(<(?:c|row)) r="[A-Z]*[0-9]+"', rb"\1", sheet),
        sheet.replace(b"</sheetData>", stray),
        top + top[top.index(b"<row") :] + b'<row r="2"' + below,
        re.sub(rb"<(/?)(?=[a-zA-Z])", rb"<\1x:", sheet).replace(b"xmlns=", b"xmlns:x=", 1),
        sheet.replace(b"<v>", b"<!-- <c><v>1</v></c> --><v>", chance.randrange(9)),
        _flip(chance, sheet),
        _cut(chance, sheet),
    ]
    path.write_bytes(_with_part(book, name, chance.choice(changes)))


def _log(rows: list[dict[str, Any]], ascii_only: bool = True) -> bytes:
    lines = []
    for number, row in enumerate(rows):
        if number % 2:
            response = {name: row[name] for name in ("rewritten_query", "user_profile", "history_summary")}
            recall = row["recall_results"]
            row = {"payload": {"query": row["original_query"]}, "response": response | {"recall": recall}}
        lines.append(json.dumps(row, ensure_ascii=ascii_only))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def _good() -> list[dict[str, Any]]:
    return [good_row(number) for number in range(ROWS)]


def _writes(make: Callable[[random.Random], bytes]) -> Mutator:
    return lambda chance, path: path.write_bytes(make(chance)) and None


_CELLS = [*_TEXTS, *_NUMBERS]
MUTATORS: list[tuple[str, str, Mutator]] = [
    ("cells", ".xlsx", _writes(lambda c: _workbook(_hostile_rows(c, [*_CELLS, float("nan"), float("inf")])))),
    ("cells", ".csv", _writes(lambda c: _csv(_hostile_rows(c, [*_CELLS, "\0", '"', "\ud800", '"\n,"'])))),
    ("cells", ".jsonl", _writes(lambda c: _log(_hostile_rows(c, _JSON_VALUES)))),
    ("part", ".xlsx", _tampered_part),
    ("dialect", ".csv", _writes(_dialect)),
    ("sheet", ".xlsx", _odd_sheet),
    ("flipped", ".jsonl", _writes(lambda c: _flip(c, _log(_good(), ascii_only=False)))),
    ("flipped", ".xlsx", _writes(lambda c: _flip(c, _workbook(_good())))),
    ("flipped", ".csv", _writes(lambda c: _flip(c, _csv(_good())))),
    ("cut", ".xlsx", _writes(lambda c: _cut(c, _workbook(_good())))),
    ("cells", ".log.gz", _writes(lambda c: gzip.compress(_log(_hostile_rows(c, _JSON_VALUES))))),
    ("flipped", ".jsonl.gz", _writes(lambda c: _flip(c, gzip.compress(_log(_good()), 1)))),
    ("cut", ".log.zst", _writes(lambda c: _cut(c, pa.compress(_log(_good()), "zstd", asbytes=True)))),
    ("cut", ".csv", _writes(lambda c: _cut(c, _csv(_good()).decode().encode(c.choice(("gb18030", "utf-16")))))),
    ("cut", ".jsonl", _writes(lambda c: _cut(c, _log(_good(), ascii_only=False)))),
    ("wrong_name", ".csv", _writes(lambda c: c.choice((_workbook, _log))(_good()))),
    ("wrong_name", ".xlsx", _writes(lambda c: c.choice((_csv, _log))(_good()))),
    ("noise", ".xls", _writes(lambda c: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + c.randbytes(4096))),
]
