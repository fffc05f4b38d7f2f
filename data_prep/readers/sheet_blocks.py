"""The cells of a sheet's rows, some rows at a time: row by row, or in arrays that give a column at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, slots=True)
class CellError:
    """A cell without a value: `code` as #N/A; "" for a formula that was never calculated."""

    code: str


Cell: TypeAlias = bytes | float | bool | CellError  # a text is UTF-8
Row: TypeAlias = dict[int, Cell]  # column from 0 → what is there
Merged: TypeAlias = dict[int, list[tuple[int, int]]]  # row → (last row, column) of cells over several rows, from 0

SHARED, NUMBER, TRUTH, OTHER = range(4)


class RowBlock:
    """Rows that were read one by one."""

    def __init__(self, rows: Sequence[tuple[int, Row]]) -> None:
        self._rows = rows
        self.numbers = [number for number, _ in rows]

    def row(self, index: int) -> Row:
        return self._rows[index][1]

    def rows(self) -> Iterator[tuple[int, Row]]:
        return iter(self._rows)

    def column(self, place: int) -> list[Cell | None]:
        return [cells.get(place) for _, cells in self._rows]


class CellBlock:
    """Rows whose cells are in arrays, row by row; a row without a cell is none.

    Args:
        last: number of the piece's last row, from 0, whether it holds a cell or not.
        numbers: of the rows.
        rows, columns: index among `numbers` and column of each cell.
        kinds: what each is.
        values: place of a shared text among `texts`, or 1 for true.
        floats: of cells that are numbers.
        others: cell → what is there, for all other kinds.
    """

    def __init__(
        self,
        last: int,
        numbers: np.ndarray,
        rows: np.ndarray,
        columns: np.ndarray,
        kinds: np.ndarray,
        values: np.ndarray,
        floats: np.ndarray,
        others: dict[int, Cell],
        texts: Sequence[bytes],
    ) -> None:
        self.last, self.numbers = last, numbers.tolist()
        self._rows, self._columns, self._kinds = rows, columns, kinds
        self._values, self._floats, self._others, self._texts = values, floats, others, texts

    def row(self, index: int) -> Row:
        first, end = np.searchsorted(self._rows, [index, index + 1]).tolist()
        return {int(self._columns[cell]): self._cell(cell) for cell in range(first, end)}

    def rows(self) -> Iterator[tuple[int, Row]]:
        for index, number in enumerate(self.numbers):
            yield number, self.row(index)

    def column(self, place: int) -> list[Cell | None]:
        chosen = np.flatnonzero(self._columns == place)
        kinds = self._kinds[chosen]
        cells: list[Cell | None]
        if (kinds == SHARED).all():
            texts = self._texts
            cells = [texts[value] for value in self._values[chosen].tolist()]
        elif (kinds == NUMBER).all():
            cells = self._floats[chosen].tolist()
        elif (kinds == TRUTH).all():
            cells = (self._values[chosen] == 1).tolist()
        else:
            cells = [self._cell(cell) for cell in chosen.tolist()]
        rows = self._rows[chosen]
        if len(rows) == len(self.numbers) and (rows[1:] > rows[:-1]).all():
            return cells
        spread: list[Cell | None] = [None] * len(self.numbers)
        for row, cell in zip(rows.tolist(), cells, strict=True):
            spread[row] = cell  # of two cells of one name the last counts
        return spread

    def _cell(self, cell: int) -> Cell:
        kind = self._kinds[cell]
        if kind == SHARED:
            return self._texts[self._values[cell]]
        if kind == NUMBER:
            return float(self._floats[cell])
        return bool(self._values[cell]) if kind == TRUTH else self._others[cell]


Block: TypeAlias = RowBlock | CellBlock


def filled(blocks: Iterator[Block], merged: Merged) -> Iterator[Block]:
    """Yield every block; a cell merged over several rows is in each of them that holds something else too."""
    standing: dict[int, tuple[int, Cell]] = {}  # column → last row of its tall cell, what it holds
    for block in blocks:
        if standing or not merged.keys().isdisjoint(block.numbers):
            yield RowBlock(list(_filled_rows(block, merged, standing)))
        else:
            yield block


def _filled_rows(block: Block, merged: Merged, standing: dict[int, tuple[int, Cell]]) -> Iterator[tuple[int, Row]]:
    """Yield the rows of `block`; `standing` goes from one block to the next."""
    for number, cells in block.rows():
        if standing:
            for column in [column for column, (bottom, _) in standing.items() if bottom < number]:
                del standing[column]
            if not is_blank(cells):
                for column, (_, value) in standing.items():
                    if cells.get(column, b"") == b"":
                        cells[column] = value
        for bottom, column in merged.get(number, ()):
            if column in cells:
                standing[column] = (bottom, cells[column])
        yield number, cells


def is_blank(cells: Row) -> bool:
    """Return whether there is nothing but white space in a row."""
    return all(type(cell) is bytes and not cell.decode().strip() for cell in cells.values())


def shown(cells: Row) -> list[Any]:
    """Return the cells of a row in their places, texts as str."""
    shown: list[Any] = [""] * (1 + max(cells, default=-1))
    for place, cell in cells.items():
        shown[place] = cell.decode() if isinstance(cell, bytes) else cell.code if isinstance(cell, CellError) else cell
    return shown
