"""A piece of a sheet reads the same at once (`sheet_arrays.read_block`) and row by row, or it is left to the latter."""

import io
import random
import re
from datetime import datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.readers.sheet_arrays import Odd, read_block
from data_prep.readers.sheet_xml import DamagedSheet, WorkbookXml

PLACES = ["A", "B", "Z", "AA", "AZ", "ZZ", "ABC"]
USUAL = [
    '<c r="{0}" t="s"><v>{1}</v></c>',
    '<c r="{0}" s="1" t="s"><v>{1}</v></c>',
    '<c r="{0}"><v>{2}</v></c>',
    '<c r="{0}" s="2"><v>{2}</v></c>',
    '<c r="{0}" s="1"><v>{2}</v></c>',
    '<c r="{0}" t="b"><v>{3}</v></c>',
    '<c r="{0}" t="n"><v>{2}</v></c>',
    '<c r="{0}" t="e"><v>#N/A</v></c>',
    '<c r="{0}" t="str"><v>a &amp; b_x000A_</v></c>',
    '<c r="{0}" t="d"><v>2026-01-02</v></c>',
    '<c r="{0}" s="1"/>',
    '<c r="{0}"><v></v></c>',
]
ODD = [
    '<c t="s"><v>{1}</v></c>',
    '<c r="{0}" t="inlineStr"><is><t>x</t></is></c>',
    '<c r="{0}"><f>1+1</f><v>{2}</v></c>',
    '<c r="{0}"><f>1+1</f></c>',
    '<c r="{0}" t="s"><v> {1} </v></c>',
    '<c r="{0}" t="s"><v>99</v></c>',
    '<c r="{0}" t="s"><v>-1</v></c>',
    '<c r="{0}" t="s"><v>1.5</v></c>',
    '<c r="{0}"><v>abc</v></c>',
    '<c r="{0}"></c>',
    '<c t="s" r="{0}"><v>{1}</v></c>',
    '<c r="{0}" t="s" s="1"><v>{1}</v></c>',
    '<c r="{0}" cm="1" t="s"><v>{1}</v></c>',
    "<c r='{0}' t='s'><v>{1}</v></c>",
    '<c r="{0}" t=">"><v>{2}</v></c>',
    '<c r="{0}"  t="s"><v>{1}</v></c>',
    '<c r="{0}" t="s" ><v>{1}</v></c>',
    '<c r="{0}" t=""><v>{2}</v></c>',
    '<c r="{0}"><v xml:space="preserve">{2}</v></c>',
    '<c r="A"><v>{2}</v></c>',
    '<c r="a1"><v>{2}</v></c>',
    '<c r="ABCD1"><v>{2}</v></c>',
    '<c r="A12345678"><v>{2}</v></c>',
    '<c r="A1x"><v>{2}</v></c>',
    "<!-- --> ",
]
NUMBERS = ["0", "-1", "0.5", "44197.75", "1E+3", "1e-300", "123456789012345678", "nan", "inf", " 7 ", "1_0", "."]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> WorkbookXml:
    path: Path = tmp_path_factory.mktemp("book") / "book.xlsx"
    with xlsxwriter.Workbook(str(path)) as out:
        sheet = out.add_worksheet()
        sheet.write_row(0, 0, ["查询", "a<b&c", "", "四"])
        sheet.write_datetime(0, 5, datetime(2026, 1, 2), out.add_format({"num_format": "d/m/yy"}))
        sheet.write(0, 6, 1, out.add_format({"bold": True}))
    return WorkbookXml(path)


def row_by_row(book: WorkbookXml, piece: bytes) -> list[tuple[int, dict]]:
    root = re.match(b"<(?:(\\w+):)?worksheet>", b"<worksheet>")
    assert root
    return [(number, cells) for number, cells in book._rows(piece, root, -1) if cells]


def at_once(book: WorkbookXml, piece: bytes) -> list[tuple[int, dict]]:
    block = read_block(piece, book._texts, [int(style) for style in book._dates], book._value)
    by_row = list(block.rows())
    places = sorted({place for _, cells in by_row for place in cells})
    for place in places:
        assert block.column(place) == [cells.get(place) for _, cells in by_row] or "nan" in repr(by_row)
    return by_row


def piece_of(chance: random.Random, cells: list[str], numbers: list[str]) -> bytes:
    rows = []
    for row in sorted(chance.sample(range(1, 60), chance.randrange(1, 8))):
        places = sorted(chance.sample(PLACES, chance.randrange(0, 6)), key=lambda place: (len(place), place))
        filled = [
            chance.choice(cells).format(
                f"{place}{row}", chance.randrange(3), chance.choice(numbers), chance.choice("01")
            )
            for place in places
        ]
        rest = chance.choice(["", ' spans="1:9"', ' spans="1:9" s="1" customFormat="1"'])
        rows.append(f'<row r="{row}"{rest}/>' if not filled else f'<row r="{row}"{rest}>{"".join(filled)}</row>')
    return "".join(rows).encode()


@settings(max_examples=1500, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_read_at_once_is_what_is_read_row_by_row(book: WorkbookXml, seed: int) -> None:
    chance = random.Random(seed)
    odd = chance.random() < 0.5
    piece = piece_of(chance, USUAL + ODD * odd, NUMBERS)
    if odd and chance.random() < 0.5:  # one byte changed, lost or added
        place = chance.randrange(len(piece))
        piece = piece[:place] + chance.choice([b"", b"<", b">", b'"', b" ", b"1", b"c"]) + piece[place + 1 :]
    try:
        found = at_once(book, piece)
    except Odd:
        return
    assert repr(found) == repr(row_by_row(book, piece))


def test_the_usual_forms_are_read_at_once(book: WorkbookXml) -> None:
    for seed in range(200):
        piece = piece_of(random.Random(seed), USUAL, ["0.5", "-1", "1E+3"])
        assert repr(at_once(book, piece)) == repr(row_by_row(book, piece))


@pytest.mark.parametrize("cell", ODD)
def test_what_only_the_row_reader_understands_is_left_to_it(book: WorkbookXml, cell: str) -> None:
    piece = ('<row r="3">' + cell.format("B3", 1, "0.5", "1") + "</row>").encode()
    try:
        found = at_once(book, piece)
    except Odd:
        return
    assert found == row_by_row(book, piece)


def test_a_damaged_cell_costs_nothing_above_it(tmp_path: Path) -> None:
    path, held = tmp_path / "book.xlsx", io.BytesIO()
    with xlsxwriter.Workbook(held, {"in_memory": True}) as out:
        sheet = out.add_worksheet()
        for row in range(9):
            sheet.write_row(row, 0, [f"问题{row}", row])
    with ZipFile(held) as whole, ZipFile(path, "w") as copy:
        for part in whole.namelist():
            content = whole.read(part)
            if part.endswith("sheet1.xml"):
                content = content.replace(b'<c r="A6" t="s"><v>5</v>', b'<c r="A6" t="s"><v>5000</v>')
            copy.writestr(part, content)
    blocks = WorkbookXml(path).blocks(0)
    assert [number for number, _ in next(blocks).rows()] == [0, 1, 2, 3, 4]
    with pytest.raises(DamagedSheet, match="row 6"):
        next(blocks)
