"""Hostile documents and requests, made on the spot."""

from __future__ import annotations

import io
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

import xlsxwriter

_HAN = (0x4E00, 0x9FA5)


def rare_characters(random_: random.Random, length: int) -> str:
    return "".join(chr(random_.randrange(*_HAN)) for _ in range(length))


def rows(texts: Iterator[str] | list[str]) -> bytes:
    """Return a corpus with a document for each text."""
    lines = (json.dumps({"_id": f"h{n}", "text": text}, ensure_ascii=False) for n, text in enumerate(texts))
    return "\n".join(lines).encode()


def documents(random_: random.Random) -> dict[str, tuple[str, bytes]]:
    """Return hostile uploads by their shape: a document's name and its bytes."""
    surname, deep = "赵" * 90_000, "[" * 50_000
    return {
        "combining marks": ("marks.jsonl", rows(["鱼" + "\u0301" * 49_000] * 60)),
        "one character": ("surname.jsonl", rows([surname] * 60)),
        "no dictionary knows it": ("rare.jsonl", rows([rare_characters(random_, 90_000) for _ in range(20)])),
        "expanding ligatures": ("ligature.jsonl", rows(["\ufdfa" * 90_000] * 20)),
        "a longest passage": ("long.jsonl", rows(["鱼" * 5_000_000])),
        "tiny documents": ("tiny.jsonl", rows([str(n) for n in range(100_000)])),
        "a huge batch": ("batch.jsonl", rows([rare_characters(random_, 300) for _ in range(18_000)])),
        "many questions": (
            "questions.jsonl",
            json.dumps({"_id": "q", "text": "鱼", "questions": ["问"] * 50_000}).encode(),
        ),
        "deep JSON": ("deep.jsonl", b'{"_id":"a","text":"b","x":' + deep.encode() + b"}"),
        "regular-expression bait": (
            "bait.md",
            ("a-" * 20_000 + "\n\n" + "|" * 60_000 + "\n" + "[![" * 60_000).encode(),
        ),
        "nested Markdown": ("nested.md", (">" * 3000 + "a\n" + "- " * 3000 + "b\n").encode() * 50),
        "one endless line": ("line.txt", b"a" * 10_000_000),
        "a page of glyphs": ("glyphs.pdf", _pdf(b"BT /F 12 Tf " + b"<9c7c> Tj " * 2_000_000 + b"ET")),
        "a swollen workbook": ("cells.xlsx", _workbook()),
    }


def searches(random_: random.Random) -> dict[str, Any]:
    """Return hostile bodies of a search by their shape."""
    return {
        "long queries": lambda: {"query": rare_characters(random_, 4000), "rewritten_query": "赵" * 4000},
        "long contexts": lambda: {"query": "鱼", "user_profile": rare_characters(random_, 90_000)},
        "all passages": lambda: {
            "query": rare_characters(random_, 2),
            "top_k": 200,
            "score_threshold": 0,
            "debug": True,
        },
        "wide JSON": lambda: {"query": "鱼", "history": [], "x": [[]] * 200_000},
        "many turns": lambda: {"query": "鱼", "history": [{"role": "user", "content": "a"}] * 20_000},
        "bait": lambda: {"query": ("a-" * 2000)[: random_.randrange(3000, 4000)], "rewritten_query": "1," * 2000},
    }


def _pdf(content: bytes) -> bytes:
    packed = zlib.compress(content, 9)
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents 5 0 R>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[4 0 R]>>",
        font,
        page,
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed),
    ]
    written = b"%PDF-1.7\n"
    for number, body in enumerate(objects, start=1):
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    return written + b"trailer<</Size 6/Root 1 0 R>>\n%%EOF"


def _workbook() -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["问题", "答案"])
        for number in range(1, 20_000):
            sheet.write_row(number, 0, [f"q{number}", "鱼油" * 200])
    return file.getvalue()
