"""Workbooks as customers keep them: titles, merged cells, hidden sheets, errors, dates, damage, passwords, bombs.

Real ones are read too where `XLSX_TRICKY` names a folder of them.
"""

from __future__ import annotations

import os
import random
import re
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter

from data_prep.readers.workbook import read_workbook
from data_prep.rows.columns import ROWS
from data_prep.rows.recall_cells import EXCEL_CELL_LIMIT
from reward.records.files import BadInput
from reward.settings.data import SourceSettings

REQUIRED = ("original_query", "rewritten_query")
HEADINGS = ["original_query", "rewritten_query", "top1_score"]

Sheet = xlsxwriter.worksheet.Worksheet


def write(path: Path, fill: Callable[[xlsxwriter.Workbook], None], **options: Any) -> Path:
    with xlsxwriter.Workbook(str(path), options) as book:
        fill(book)
    return path


def write_cells(path: Path, *sheets: Sequence[Sequence[Any]], **options: Any) -> Path:
    def fill(book: xlsxwriter.Workbook) -> None:
        for cells in sheets:
            sheet = book.add_worksheet()
            for number, row in enumerate(cells):
                sheet.write_row(number, 0, row)

    return write(path, fill, **options)


def read(
    path: Path,
    headings: dict[str, str] | None = None,
    required: Sequence[str] = REQUIRED,
    notes: list[str] | None = None,
) -> list[dict[str, Any]]:
    batches = list(read_workbook(path, SourceSettings(headings=headings or {}), required, notes))
    assert all(batch.schema == ROWS for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def queries(path: Path, **how: Any) -> list[tuple[int, str]]:
    return [(row["row"], row["original_query"]) for row in read(path, **how)]


def problem_of(path: Path, **how: Any) -> str:
    with pytest.raises(BadInput) as problem:
        read(path, **how)
    text = str(problem.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def replace_in(path: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    assert change(content[part]) != content[part]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in content.items():
            out.writestr(name, change(data) if name == part else data)


SHEET = "xl/worksheets/sheet1.xml"


def test_headings_below_titles_with_everything_people_put_into_them(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("导出")
        sheet.merge_range("B2:G2", "导入说明：\n1、* 代表必填")
        sheet.write_row("B5", ["序号", "\ufeff原始查询*", " 改写\n查询（必填） ", "Top1 分数", "是否成功：", "备注"])
        sheet.write_row("B6", [1, "鱼油怎么吃", "鱼油 用法", 0.9, "是", "x"])
        sheet.write_row("B9", [2, 12345, "编号", "0.7", "失败", ""])

    rows = read(write(tmp_path / "a.xlsx", fill))
    assert [(r["sheet"], r["row"], r["original_query"], r["rewritten_query"], r["success"]) for r in rows] == [
        ("导出", 6, "鱼油怎么吃", "鱼油 用法", True),
        ("导出", 9, "12345", "编号", False),
    ]
    assert [row["top1_score"] for row in rows] == [0.9, 0.7] and not any(row["refused"] for row in rows)


def test_the_tenants_own_headings_come_first(tmp_path: Path) -> None:
    cells = [["题干", "问题", "答案"], ["鱼油", "别的", "用法"]]
    path = write_cells(tmp_path / "a.xlsx", cells)
    own = {"题干": "original_query", "答案": "rewritten_query"}
    assert queries(path, headings=own) == [(2, "鱼油")]
    both = own | {"问题": "original_query"}
    assert problem_of(path, headings=both) == "sheet Sheet1: two columns mean original_query: '题干' and '问题'"
    with pytest.raises(BadInput, match="'答案' names 'answer', which is no column"):
        read(path, headings={"答案": "answer"})


def test_two_columns_of_one_meaning_are_both_named(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "a.xlsx", [["查询", "用户问题", "改写查询"], ["a", "b", "c"]])
    assert problem_of(path) == "sheet Sheet1: two columns mean original_query: '查询' and '用户问题'"


def test_tall_cells_count_in_each_of_their_rows(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        sheet.merge_range("A1:A2", "原始查询")
        sheet.merge_range("B1:C1", "结果")
        sheet.write_row("B2", ["改写查询", "top1分数"])
        sheet.merge_range("A3:A5", "鱼油")
        for row, rewrite in ((2, "用法"), (3, "用量"), (5, "别的")):
            sheet.write(row, 1, rewrite)
        sheet.write("A6", "钙片")
        sheet.merge_range("A7:C8", "")

    rows = read(write(tmp_path / "a.xlsx", fill))
    found = [(row["row"], row["original_query"], row["rewritten_query"]) for row in rows]
    assert found == [(3, "鱼油", "用法"), (4, "鱼油", "用量"), (6, "钙片", "别的")], "row 5 has nothing of its own"


def test_every_sheet_with_the_columns_is_read(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        for name, top in (("一月", HEADINGS), ("说明", ["本表说明"]), ("二月", HEADINGS), ("旧", HEADINGS), ("空", [])):
            sheet = book.add_worksheet(name)
            sheet.write_row(0, 0, top)
            sheet.write_row(1, 0, [name, "改写", 0.9] if len(top) > 1 else [])
            if name == "旧":
                sheet.hide()

    path, notes = write(tmp_path / "a.xlsx", fill), list[str]()
    rows = read(path, notes=notes)
    assert [(row["sheet"], row["row"], row["original_query"]) for row in rows] == [
        ("一月", 2, "一月"),
        ("二月", 2, "二月"),
    ]
    assert notes == [
        f"{path}: sheet 说明: no column original_query, rewritten_query (columns: 本表说明)",
        f"{path}: sheet 旧: hidden",
    ]


def test_a_hidden_sheet_counts_where_no_other_has_the_columns(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        book.add_worksheet("封面").write(0, 0, "封面")
        for name, hide in (("数据", Sheet.hide), ("更深", Sheet.very_hidden)):
            sheet = book.add_worksheet(name)
            sheet.write_row(0, 0, HEADINGS)
            sheet.write_row(1, 0, [name, "改写", 0.9])
            hide(sheet)

    assert [row["sheet"] for row in read(write(tmp_path / "a.xlsx", fill))] == ["数据"]


def test_formulas_count_with_their_saved_value_and_errors_refuse_their_row(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        sheet.write_row("B2", [*HEADINGS, "备注"])
        for number in range(3, 8):
            sheet.write_row(f"B{number}", [f"问题{number}", "改写", 0.9, "x"])
        sheet.write_formula("C3", '="a"&"b"', None, "ab")
        sheet.write_formula("C4", '=VLOOKUP("没有",A1:B2,2,0)', None, "#N/A")
        sheet.write_formula("B5", "=1/0", None, "#DIV/0!")
        sheet.write_formula("E6", "=1/0", None, "#DIV/0!")
        sheet.write_formula("B8", "=1/0", None, "#REF!")  # nothing else stands in its row
        sheet.write_formula("C7", '=IF(1,"","x")', None, "nothing")

    path = write(tmp_path / "a.xlsx", fill)
    replace_in(path, SHEET, lambda xml: xml.replace(b"<v>nothing</v>", b"<v></v>"))
    rows = read(path)
    assert [(row["row"], row["rewritten_query"], row["refused"]) for row in rows] == [
        (3, "ab", ""),
        (4, "", "rewritten_query: the cell holds the error #N/A"),
        (5, "改写", "original_query: the cell holds the error #DIV/0!"),
        (6, "改写", ""),
        (7, "", ""),
        (8, "", "original_query: the cell holds the error #REF!"),
    ]


def test_formulas_that_were_never_calculated_refuse_their_row(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (HEADINGS, ["=A3", "改写", 0.9], ["鱼油", "改写", 0.9]):
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    calculated, good = read(tmp_path / "a.xlsx")
    assert calculated["refused"].startswith("original_query: a formula that was never calculated")
    assert (good["row"], good["refused"]) == (3, "")


def test_cells_without_references_are_read_and_refused_alike(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, HEADINGS)
        sheet.write_row(1, 0, ["a", "b", 0.5])
        sheet.write(2, 0, "c")
        sheet.write_formula(2, 1, "=1/0", None, "#N/A")
        sheet.write_formula(3, 0, "=A1", None, "")
        sheet.write(3, 1, "d")

    path = write(tmp_path / "a.xlsx", fill)
    replace_in(path, SHEET, lambda xml: xml.replace(b"<v></v>", b""))
    whole = read(path)
    replace_in(path, SHEET, lambda xml: re.sub(rb'(<(?:c|row)) r="[A-Z]*[0-9]+"', rb"\1", xml))
    assert read(path) == whole
    assert [row["refused"] for row in whole] == [
        "",
        "rewritten_query: the cell holds the error #N/A",
        "original_query: a formula that was never calculated: open and save the workbook in Excel or WPS",
    ]


def test_headings_in_the_middle_are_no_row(tmp_path: Path) -> None:
    cells = [HEADINGS, ["a", "b", 1], HEADINGS, ["c", "d", 1], ["查詢", "改寫", "Top1分數"], ["original_query", "x", 1]]
    path, notes = write_cells(tmp_path / "a.xlsx", cells), list[str]()
    assert queries(path, notes=notes) == [(2, "a"), (4, "c"), (6, "original_query")]
    assert notes == [f"{path}: sheet Sheet1: 2 more headings in the middle: no rows"]
    other = write_cells(tmp_path / "b.xlsx", [HEADINGS, ["a", "b", 1], ["改写", "查询"], ["c", "d"]])
    batches = read_workbook(other, SourceSettings(), REQUIRED)
    assert next(batches)["original_query"].to_pylist() == ["a"]
    with pytest.raises(BadInput, match="sheet Sheet1: row 3: headings again, of other columns than above"):
        next(batches)


def test_ids_are_exact_or_refused(tmp_path: Path) -> None:
    ids = [17, 1234567890123456, 2**53, 2**53 + 2, 1994723847123456789, "1994723847123456789", -(2**60), 1.5]
    rows = [["查询", "编号"], *([f"问题{n}", number] for n, number in enumerate(ids)), [2.0**60, "x"]]
    found = read(write_cells(tmp_path / "a.xlsx", rows), required=["original_query"])
    assert [row["query_id"] for row in found if not row["refused"]] == [
        "17", "1234567890123456", "9007199254740992", "1994723847123456789", "1.5",
    ]  # fmt: skip
    assert [row["refused"].partition(" (")[0] for row in found if row["refused"]] == [
        *["query_id: rounded by Excel"] * 3,
        "original_query: rounded by Excel",
    ]


def test_hits_that_excel_cut_off_are_counted(tmp_path: Path) -> None:
    cut = ('[{"content": "' + "👩" * 20_000).encode("utf-16-le")[: 2 * EXCEL_CELL_LIMIT].decode("utf-16-le", "ignore")
    cells = [[*HEADINGS, "recall_results"], ["a", "b", 0.9, cut], ["c", "d", 0.8, '[{"content": "x", "score": 1}]']]
    path, notes = write_cells(tmp_path / "a.xlsx", cells), list[str]()
    assert [(row["refused"], row["top1_score"]) for row in read(path, notes=notes)] == [("", 0.9), ("", 0.8)]
    assert notes == [f"{path}: recall_results of 1 rows cut off at Excel's limit: read without hits"]


def _with_prefix(xml: bytes) -> bytes:
    return re.sub(rb"<(/?)(?=[a-zA-Z])", rb"<\1x:", xml).replace(b"xmlns=", b"xmlns:x=", 1)


@pytest.mark.parametrize(
    "change",
    [
        _with_prefix,
        lambda xml: xml.replace(b"<v>", b"<!-- a note --><v>"),
        lambda xml: xml.replace(b"<c ", b"<c  "),
        lambda xml: re.sub(rb'(<c r="[^"]*") s="([0-9]+)"( t="[a-z]+")', rb'\1\3 s="\2"', xml),
        lambda xml: re.sub(rb"<v>([^<&]*)</v>", rb"<v><![CDATA[\1]]></v>", xml),
        lambda xml: xml.replace(b"><", b">\n  <"),
        lambda xml: xml.replace(b'"', b"'"),
    ],
)
def test_xml_written_otherwise_is_read_alike(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet, bold = book.add_worksheet(), book.add_format({"bold": True})
        sheet.write_row(0, 0, [*HEADINGS, "success", "时间", "备注"])
        for row in range(1, 400):
            sheet.write_row(row, 0, [f"a&b<{row}> _x000D_\x0b", f" 改 写\n{row}", row / 400, row % 2 == 0], bold)
            sheet.write_datetime(row, 4, datetime(2026, 1, row % 28 + 1, 3, 4, 5), book.add_format({"num_format": 22}))
        sheet.write_rich_string(7, 1, "一", bold, "二", "三")
        sheet.write_formula(8, 0, "=1/0", None, "#DIV/0!")
        sheet.write_formula(9, 1, '="x"', None, "x<y")
        sheet.merge_range(20, 0, 24, 0, "合并", bold)

    path = write(tmp_path / "a.xlsx", fill)
    whole = read(path)
    assert whole[6]["rewritten_query"] == "一二三" and whole[22]["original_query"] == "合并" and len(whole) == 399
    replace_in(path, SHEET, change)
    assert read(path) == whole


@pytest.mark.parametrize("date_1904", [False, True])
def test_dates_of_both_calendars(tmp_path: Path, date_1904: bool) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet, moment = book.add_worksheet(), datetime(2026, 1, 2, 3, 4, 5)
        sheet.write_row("A1", ["查询", "时间"])
        sheet.write("A2", "鱼油")
        sheet.write_datetime("B2", moment, book.add_format({"num_format": "yyyy/m/d hh:mm:ss"}))
        sheet.write("A3", "钙片")
        sheet.write_datetime("B3", moment)  # a number without the format of a date
        sheet.write_row("A4", ["锌", "2026年1月2日 3:04:05"])
        sheet.write("A5", "铁")
        sheet.write_number("B5", 1.5, book.add_format({"num_format": "[h]:mm:ss"}))

    path = write(tmp_path / "a.xlsx", fill, date_1904=date_1904)
    moments = [row["timestamp"] for row in read(path, required=["original_query"])]
    assert moments[:3] == ["2026-01-02T03:04:05"] * 3
    assert len(moments) == 4


def test_booleans_numbers_as_text_and_blank_rows(tmp_path: Path) -> None:
    cells = [
        ["original_query", "rewritten_query", "success", "recall_count"],
        ["a", "b", True, "5"],
        [" ", "", "　", ""],
        ["c", "d", "成功", 3.0],
        ["", "只有改写", False, ""],
        ["", "", "", "", "只有备注"],
    ]
    rows = read(write_cells(tmp_path / "a.xlsx", cells))
    assert [(row["row"], row["success"], row["recall_count"], row["refused"]) for row in rows] == [
        (2, True, 5, ""),
        (4, True, 3, ""),
        (5, False, None, "original_query: empty"),
        (6, None, None, "original_query: empty"),
    ]


def test_control_characters_emoji_and_cells_at_excels_limit(tmp_path: Path) -> None:
    texts = ["a\x0bb\ud7ff", "👩‍👩‍👧", "长" * EXCEL_CELL_LIMIT, "<&>\"'", "=1+1", "_x000D_"]
    path = write_cells(tmp_path / "a.xlsx", [HEADINGS, *([text, "b"] for text in texts)], strings_to_formulas=False)
    rows = read(path)
    assert [row["original_query"] for row in rows] == texts and not any(row["refused"] for row in rows)


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    cells = [HEADINGS, *([f"问题{n}", "改写", "高" if n % 5_000 == 0 else n / 20_000] for n in range(20_000))]
    path = write_cells(tmp_path / "a.xlsx", cells, constant_memory=True)
    rows = read(path)
    assert [(row["row"], row["original_query"]) for row in rows] == [(n + 2, f"问题{n}") for n in range(20_000)]
    assert [row["row"] for row in rows if row["refused"]] == [2, 5_002, 10_002, 15_002]


def test_strict_ooxml(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "a.xlsx", [[*HEADINGS, "时间"], ["鱼油", "用法", 0.9]])
    dated = b'<c r="D2" t="d"><v>2026-01-02T03:04:05</v></c></row></sheetData>'
    replace_in(path, SHEET, lambda xml: xml.replace(b"</row></sheetData>", dated))
    with zipfile.ZipFile(path) as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    transitional = b"http://schemas.openxmlformats.org/"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in content.items():
            strict = data.replace(transitional + b"spreadsheetml/2006/", b"http://purl.oclc.org/ooxml/spreadsheetml/")
            kinds = transitional + b"officeDocument/2006/relationships"
            out.writestr(name, strict.replace(kinds, b"http://purl.oclc.org/ooxml/officeDocument/relationships"))
    [row] = read(path)
    assert (row["original_query"], row["top1_score"], row["timestamp"]) == ("鱼油", 0.9, "2026-01-02T03:04:05")


def test_a_prefix_in_the_xml_and_a_wrong_suffix(tmp_path: Path) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, HEADINGS)
        sheet.write_row(1, 0, ["鱼油", "用法", 0.9])
        sheet.write_formula(2, 0, "=1/0", None, "#DIV/0!")

    path = write(tmp_path / "a.xlsx", fill)
    renamed = path.rename(tmp_path / "a.xls")
    reasons = ["", "original_query: the cell holds the error #DIV/0!"]
    assert [row["refused"] for row in read(renamed)] == reasons


def test_no_row_and_no_text(tmp_path: Path) -> None:
    assert problem_of(write_cells(tmp_path / "a.xlsx", [HEADINGS])) == "no row below the headings"
    assert problem_of(write_cells(tmp_path / "b.xlsx", [], [])) == "no sheet holds any text"
    several = write_cells(tmp_path / "c.xlsx", [["甲"]], [["乙"]])
    assert problem_of(several) == (
        "sheet Sheet1: no column original_query, rewritten_query (columns: 甲); "
        "sheet Sheet2: no column original_query, rewritten_query (columns: 乙)"
    )


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.xlsx", None, "No such file"),
        ("empty.xlsx", b"", "the file is empty"),
        ("text.xlsx", b"hello, world", "not a readable workbook: it begins with 'hello, w'"),
        ("page.xls", b"<html><table>", "not a readable workbook: it begins with '<html><t'"),
        ("head.xlsx", b"PK\x03\x04" + bytes(100), "not a readable workbook: damaged"),
        ("other.xlsx", None, "not a readable workbook"),
        ("ole.xls", OLE + bytes(1000), "not a readable workbook"),
        ("ole.xlsx", OLE + bytes(1000), "not a readable workbook"),
    ],
)
def test_files_that_are_no_workbooks(tmp_path: Path, name: str, content: bytes | None, problem: str) -> None:
    path = tmp_path / name
    if name == "other.xlsx":
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("word/document.xml", "<document/>")
    elif content is not None:
        path.write_bytes(content)
    assert problem_of(path).startswith(problem)


def test_a_cut_off_workbook(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "a.xlsx", [HEADINGS, ["a", "b", 1]])
    path.write_bytes(path.read_bytes()[:-200])
    assert problem_of(path).startswith("not a readable workbook: damaged")


def test_the_sheets_before_a_damaged_one_still_count(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "a.xlsx", [HEADINGS, ["a", "b", 1]], [HEADINGS, ["c", "d", 1]])
    replace_in(path, "xl/worksheets/sheet2.xml", lambda xml: xml[: xml.rindex(b"</c>")])
    batches = read_workbook(path, SourceSettings(), REQUIRED)
    assert next(batches)["original_query"].to_pylist() == ["a"]
    with pytest.raises(BadInput, match="sheet Sheet2: not readable"):
        next(batches)


def test_bytes_changed_anywhere_end_in_rows_or_in_one_line(tmp_path: Path) -> None:
    whole = write_cells(tmp_path / "a.xlsx", [HEADINGS, *([f"问题{n}", "改写", n] for n in range(20))]).read_bytes()
    path, outcomes = tmp_path / "b.xlsx", list[str]()
    for seed in range(25):
        chance, changed = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice((1, 5, 50))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            outcomes.append(str(len(read(path))))
        except BadInput as problem:
            assert str(problem).startswith(f"{path}: ") and "\n" not in str(problem)
            outcomes.append("refused")
    assert "refused" in outcomes and "20" in outcomes


def _bomb(path: Path, content: bytes, repeats: int) -> Path:
    """A workbook whose sheet holds `content` that often before its first row."""
    small = write_cells(path.with_name("small.xlsx"), [HEADINGS, ["a", "b", 1]])
    with zipfile.ZipFile(small) as parts, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in parts.namelist():
            before, mark, after = parts.read(name).partition(b"<sheetData>")
            with out.open(name, "w") as blown:
                blown.write(before + mark)
                for _ in range(repeats if mark else 0):
                    blown.write(content)
                blown.write(after)
    return path


def test_zip_bombs(tmp_path: Path) -> None:
    declared = _bomb(tmp_path / "declared.xlsx", b" " * (1 << 20), 100)
    assert problem_of(declared).startswith("unpacks to 100 MiB, ")
    with zipfile.ZipFile(declared) as parts:
        true_size = parts.getinfo(SHEET).file_size
    lying = declared.read_bytes().replace(true_size.to_bytes(4, "little"), (3000).to_bytes(4, "little"))
    (tmp_path / "lying.xlsx").write_bytes(lying)
    assert problem_of(tmp_path / "lying.xlsx")


@pytest.mark.parametrize("stray", ["XFD1048576", "XFD2", "A1048576", "C1048570"])
def test_a_stray_cell_far_from_the_others_costs_nothing(tmp_path: Path, stray: str) -> None:
    path = write_cells(tmp_path / "a.xlsx", [HEADINGS, ["a", "b", 1], ["c", "d", 1]])
    row, cell = int(stray.lstrip("XFDAC")), f'<c r="{stray}" t="inlineStr"><is><t>x</t></is></c></row>'.encode()
    if row == 2:
        replace_in(path, SHEET, lambda xml: xml.replace(b'</row><row r="3"', cell + b'<row r="3"'))
    else:
        far = b'<row r="%d">%b</sheetData>' % (row, cell)
        replace_in(path, SHEET, lambda xml: xml.replace(b"</sheetData>", far))
    rows = read(path)
    assert [(row["row"], row["original_query"]) for row in rows[:2]] == [(2, "a"), (3, "c")]
    named = [] if row == 2 else [(row, "" if stray.startswith("A") else "original_query: empty")]
    assert [(row["row"], row["refused"]) for row in rows[2:]] == named


def test_a_text_that_many_rows_share_has_a_limit(tmp_path: Path) -> None:
    laughs = write_cells(tmp_path / "laughs.xlsx", [HEADINGS, ["长" * 30_000, "b", 1]])
    same = b"".join(b'<row r="%d"><c r="A%d" t="s"><v>3</v></c></row>' % (n, n) for n in range(3, 40_000))
    replace_in(laughs, SHEET, lambda xml: xml.replace(b"</sheetData>", same + b"</sheetData>"))
    with pytest.raises(BadInput, match="needs more memory than a workbook of its size does"):
        for _ in read_workbook(laughs, SourceSettings(), REQUIRED):
            pass


TRICKY = Path(os.environ.get("XLSX_TRICKY", "/nowhere"))
real = pytest.mark.skipif(not TRICKY.is_dir(), reason="XLSX_TRICKY names no folder of workbooks")


@real
@pytest.mark.parametrize(
    ("name", "headings", "rows", "first", "refused"),
    [
        (
            "题库导入模板.xlsx",
            {"题干": "original_query", "C": "rewritten_query"},
            404,
            (2, "零件图的幅面是（ ）号图纸。"),
            1,
        ),
        ("学生基础数据导入带描述头.xlsx", {"姓名": "original_query"}, 16, (3, "杨圣超"), 0),
        ("产品导入模板.xlsx", {"产品名称": "original_query"}, 6, (3, "1212"), None),
        ("合并行.xlsx", {"姓名": "original_query"}, 13, (2, "张三"), 0),
        ("管轴导入数据带有空行.xlsx", {"管轴编号": "original_query", "是否为吊架": "success"}, 6, (3, "ZZ-01"), None),
        ("t02.xlsx", {"标准中文名": "original_query"}, 1, (3, "1,2-戊二醇"), 0),
        ("t01.xls", {"品名": "original_query"}, 1, (3, "加大平垫圈"), 0),
        ("converter07.xlsx", {"大数的字符串": "original_query", "布尔的布尔": "success"}, 1, (2, "1"), 0),
        ("cellDataDemo.xlsx", {"字符串标题": "original_query", "公式": "rewritten_query"}, 20, (2, "字符串0"), 0),
        ("TestIssue153.xlsx", {"代号": "original_query", "新代号": "rewritten_query"}, 3907, (2, "1CA212A00010"), 60),
        ("empty_s_attribute.xlsx", {"Name": "original_query", "Value": "top1_score"}, 4, (2, "John"), 0),
    ],
)
def test_real_workbooks(
    name: str, headings: dict[str, str], rows: int, first: tuple[int, str], refused: int | None
) -> None:
    found = read(TRICKY / name, headings, ("original_query",))
    assert len(found) == rows and (found[0]["row"], found[0]["original_query"]) == first
    if refused is not None:
        assert sum(row["refused"] != "" for row in found) == refused


@real
def test_real_dates_of_the_1904_calendar() -> None:
    path = TRICKY / "date_1904.xlsx"
    assert problem_of(path).startswith("sheet Sheet1: no column original_query, rewritten_query (columns: 2021-01-01")


@real
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("encryptAES.xlsx", "protected by a password: save it without one"),
        ("Issue296.xlsx", "sheet Sheet1: no column original_query"),
        ("TestMultiSheetWithHiddenSheet.xlsx", "sheet Sheet2: no column original_query"),
    ],
)
def test_real_workbooks_that_say_why_not(name: str, problem: str) -> None:
    assert problem_of(TRICKY / name).startswith(problem)
