"""PDFs written by hand: pages of text lines in a font that is named, not embedded, and whatever else a test adds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

_TO_UNICODE = (
    b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def "
    b"1 begincodespacerange <0000> <FFFF> endcodespacerange 1 beginbfrange <0000> <FFFF> <0000> endbfrange "
    b"endcmap end end"
)
_FONT = [
    b"<</Type/Font/Subtype/Type0/BaseFont/SimSun/Encoding/Identity-H/DescendantFonts[4 0 R]/ToUnicode 5 0 R>>",
    b"<</Type/Font/Subtype/CIDFontType2/BaseFont/SimSun/DW 1000"
    b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>",
]
_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"


def text_operators(lines: Sequence[str]) -> bytes:
    shown = " ".join(f"<{line.encode('utf-16-be').hex()}> Tj T*" for line in lines)
    return f"BT /F 12 Tf 16 TL 50 780 Td {shown} ET".encode()


def stream(data: bytes, filters: int = 0) -> bytes:
    """A stream object, deflated `filters` times over."""
    for _ in range(filters):
        data = zlib.compress(data, 9)
    named = b"/Filter[%s]" % (b"/FlateDecode" * filters) if filters else b""
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(data), named, data)


def write_pdf(path: Path, pages: Sequence[Sequence[str]]) -> Path:
    """A PDF of these pages' lines."""
    return write_objects(path, [stream(text_operators(lines)) for lines in pages])


def write_objects(path: Path, contents: Sequence[bytes], *, count: int | None = None, trailer: bytes = b"") -> Path:
    """A PDF whose pages have these content streams; it says it has `count` pages."""
    kids = b" ".join(b"%d 0 R" % (6 + 2 * place) for place in range(len(contents)))
    number = len(contents) if count is None else count
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count %d/Kids[%s]>>" % (number, kids)]
    objects += [*_FONT, stream(_TO_UNICODE)]
    for place, content in enumerate(contents):
        objects += [_PAGE % (7 + 2 * place), content]
    written, places = b"%PDF-1.7\n", []
    for n, body in enumerate(objects, start=1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    written += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    start = len(written) - len(table) - len(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    end = b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, trailer, start)
    path.write_bytes(written + end)
    return path
