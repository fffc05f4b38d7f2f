"""Read with calamine what `sheet_xml` cannot: an .xls, and an .xlsx that only calamine makes sense of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time

from python_calamine import CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from data_prep.readers.sheet_xml import Cell, Merged, Row, Sheet


class CalamineBook:
    """What `WorkbookXml` says, by calamine, which holds a sheet as a whole and reads errors as empty."""

    date1904 = False

    def __init__(self, book: CalamineWorkbook) -> None:
        self._book = book
        kept = [(i, one) for i, one in enumerate(book.sheets_metadata) if one.typ == SheetTypeEnum.WorkSheet]
        self.sheets = [Sheet(one.name, one.visible != SheetVisibleEnum.Visible) for _, one in kept]
        self._places = [place for place, _ in kept]
        self._open: tuple[int, CalamineSheet] | None = None

    def merged(self, index: int) -> Merged:
        found: Merged = {}
        for (top, column), (bottom, _) in self._sheet(index).merged_cell_ranges or ():
            if bottom > top:
                found.setdefault(top, []).append((bottom, column))
        return found

    def rows(self, index: int) -> Iterator[tuple[int, Row]]:
        sheet = self._sheet(index)
        left = sheet.start[1] if sheet.start else 0
        for number, cells in enumerate(sheet.iter_rows()):
            yield number, {place: _cell(cell) for place, cell in enumerate(cells, start=left) if cell != ""}

    def _sheet(self, index: int) -> CalamineSheet:
        if self._open is None or self._open[0] != index:
            self._open = None  # two sheets are never held together
            self._open = index, self._book.get_sheet_by_index(self._places[index])
        return self._open[1]


def _cell(cell: object) -> Cell:
    if isinstance(cell, str):
        return cell.encode()
    if isinstance(cell, bool | float):
        return cell
    if isinstance(cell, int):
        return float(cell)
    return (cell.isoformat() if isinstance(cell, date | time) else str(cell)).encode()
