"""Read a piece of a sheet at once, where it is written as most programs write it.

`read_block` takes rows and cells with references, shared texts, numbers, truth values and texts of their own, one
after another, with nothing between them. It refuses any other piece, and `sheet_xml` reads that row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.readers.sheet_blocks import NUMBER, OTHER, SHARED, TRUTH, Cell, CellBlock

_ROW, _EMPTY_ROW, _ROW_END, _CELL, _EMPTY_CELL, _CELL_END, _VALUE, _VALUE_END = range(1, 9)
_FOLLOWERS = {
    _ROW: (_CELL, _EMPTY_CELL, _ROW_END),
    _EMPTY_ROW: (_ROW, _EMPTY_ROW),
    _ROW_END: (_ROW, _EMPTY_ROW),
    _CELL: (_VALUE,),
    _EMPTY_CELL: (_CELL, _EMPTY_CELL, _ROW_END),
    _CELL_END: (_CELL, _EMPTY_CELL, _ROW_END),
    _VALUE: (_VALUE_END,),
    _VALUE_END: (_CELL_END,),
}
_MAY_FOLLOW = np.zeros((9, 9), bool)
for _tag, _next in _FOLLOWERS.items():
    _MAY_FOLLOW[_tag, list(_next)] = True
_MOST_DIGITS = 9
_LARGEST = 8 << 20  # bytes: the arrays take many times as much
_QUOTES = 6  # of a cell's tag, at most: reference, style, type


class Odd(Exception):
    """A piece that is to be read row by row."""


def read_block(
    piece: bytes, texts: Sequence[bytes], dates: Sequence[int], read: Callable[[bytes, bytes, bytes], Cell]
) -> CellBlock:
    """Read a piece of a sheet: whole rows.

    Args:
        texts: the shared ones.
        dates: styles that show a number as a date.
        read: makes a cell of its type, value and style, where it is neither a shared text nor a plain number.

    Raises:
        Odd: the piece is not written in the usual way, or holds what is no number and no shared text.
    """
    if len(piece) > _LARGEST:
        raise Odd
    code = np.frombuffer(piece + bytes(16), np.uint8)  # so that looking ahead stays inside
    opens, ends, quotes = (np.flatnonzero(code == sign) for sign in b'<>"')
    tags = _tags(code, opens, ends, len(piece))
    # Rows: their numbers. Cells: the column, the style and the type, between the quotes of the tag.
    is_row, is_cell = (tags == _ROW) | (tags == _EMPTY_ROW), (tags == _CELL) | (tags == _EMPTY_CELL)
    row_starts = opens[is_row]
    first = np.searchsorted(quotes, row_starts)
    quotes = np.append(quotes, [len(piece)] * _QUOTES)
    _need(_spells(code, row_starts, b'<row r="') & (quotes[first] == row_starts + 7))
    numbers = _integers(code, _Spans(row_starts + 8, quotes[first + 1]), most=7) - 1
    starts = opens[is_cell]
    place = _Attributes(code, quotes, starts, ends[is_cell])
    # Values: what is between <v> and </v>. An empty cell is none.
    value = _Spans(ends[tags == _VALUE] + 1, opens[tags == _VALUE_END])
    filled = value.ends > value.starts
    value = value.of(filled)
    has_value = tags[is_cell] == _CELL
    has_value[has_value] = filled
    there, rows = np.unique(np.searchsorted(row_starts, starts[has_value], side="right") - 1, return_inverse=True)
    style, kind = place.style.of(has_value), place.kind.of(has_value)
    kinds = _kinds_of(code, style, kind, dates)
    kinds[(kinds == TRUTH) & (value.ends - value.starts > 1)] = OTHER
    values, floats = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    shared, truth, number, other = (kinds == one for one in (SHARED, TRUTH, NUMBER, OTHER))
    values[shared] = _integers(code, value.of(shared))
    _need(values[shared] < len(texts))
    values[truth] = code[value.starts[truth]] == ord("1")
    try:
        floats[number] = [float(text) for text in value.of(number).cut(piece)]
        parts = [spans.of(other).cut(piece) for spans in (kind, value, style)]
        others = dict(zip(np.flatnonzero(other).tolist(), map(read, *parts), strict=True))
    except ValueError:
        raise Odd from None
    columns = place.column[has_value]
    return CellBlock(int(numbers[-1]), numbers[there], rows, columns, kinds, values, floats, others, texts)


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where texts begin and end in a piece."""

    starts: np.ndarray
    ends: np.ndarray

    def of(self, chosen: np.ndarray) -> _Spans:
        return _Spans(self.starts[chosen], self.ends[chosen])

    def cut(self, piece: bytes) -> list[bytes]:
        return [piece[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


def _need(holds: np.ndarray) -> None:
    if not holds.all():
        raise Odd


def _spells(code: np.ndarray, starts: np.ndarray, word: bytes) -> np.ndarray:
    found = np.ones(len(starts), bool)
    for offset, letter in enumerate(word):
        found &= code[starts + offset] == letter
    return found


def _tags(code: np.ndarray, opens: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Return what each tag is, where all are known, in their order, with nothing but values between them."""
    if not len(opens) or len(opens) != len(ends):
        raise Odd
    _need(ends > opens)
    size = ends - opens + 1
    one, two = code[opens + 1], code[opens + 2]
    closes = one == ord("/")
    empty = code[ends - 1] == ord("/")
    tags = np.zeros(len(opens), np.uint8)
    tags[(one == ord("v")) & (size == 3)] = _VALUE
    tags[closes & (two == ord("v")) & (size == 4)] = _VALUE_END
    tags[closes & (two == ord("c")) & (size == 4)] = _CELL_END
    cell = (one == ord("c")) & (two == ord(" "))
    tags[cell] = np.where(empty[cell], _EMPTY_CELL, _CELL)
    maybe = np.flatnonzero((one == ord("r")) & (two == ord("o")))
    row = maybe[_spells(code, opens[maybe], b"<row ")]
    tags[row] = np.where(empty[row], _EMPTY_ROW, _ROW)
    maybe = np.flatnonzero(closes & (two == ord("r")) & (size == 6))
    tags[maybe[_spells(code, opens[maybe], b"</row>")]] = _ROW_END
    _need(_MAY_FOLLOW[tags[:-1], tags[1:]])
    _need((opens[1:] == ends[:-1] + 1) | (tags[:-1] == _VALUE))
    if (
        opens[0]
        or ends[-1] != length - 1
        or tags[0] not in (_ROW, _EMPTY_ROW)
        or tags[-1] not in (_ROW_END, _EMPTY_ROW)
    ):
        raise Odd
    return tags


class _Attributes:
    """Column of each cell, and where the text of its style and of its type is: `r`, then `s`, then `t`."""

    def __init__(self, code: np.ndarray, quotes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        first = np.searchsorted(quotes, starts)
        count = np.searchsorted(quotes, ends) - first
        _need(_spells(code, starts, b'<c r="') & np.isin(count, (2, 4, 6)) & (quotes[first] == starts + 5))
        last = quotes[first + 1]
        letter = [code[starts + 6 + n].astype(np.int64) - 64 for n in range(3)]
        is_letter = [(one >= 1) & (one <= 26) for one in letter]
        _need(is_letter[0])
        two = is_letter[1]
        three = two & is_letter[2]
        column = np.where(two, letter[0] * 26 + letter[1], letter[0])
        self.column = np.where(three, column * 26 + letter[2], column) - 1
        _integers(code, _Spans(starts + 7 + two + three, last), most=7)
        # The second and the third attribute, of the cells that have them.
        self.style, self.kind = (_Spans(np.zeros_like(starts), np.zeros_like(starts)) for _ in range(2))
        for number in (1, 2):
            cells = np.flatnonzero(count > 2 * number)
            space, begin = last[cells] + 1, quotes[first[cells] + 2 * number]
            _need((code[space] == ord(" ")) & (code[space + 2] == ord("=")) & (begin == space + 3))
            last[cells] = quotes[first[cells] + 2 * number + 1]
            is_style = code[space + 1] == ord("s")
            _need((code[space + 1] == ord("t")) & (count[cells] == 2 * number + 2) | is_style & (number == 1))
            for mine, span in ((is_style, self.style), (~is_style, self.kind)):
                span.starts[cells[mine]], span.ends[cells[mine]] = begin[mine] + 1, last[cells[mine]]
        _need((ends == last + 1) | ((ends == last + 2) & (code[last + 1] == ord("/"))))


def _kinds_of(code: np.ndarray, style: _Spans, kind: _Spans, dates: Sequence[int]) -> np.ndarray:
    length = kind.ends - kind.starts
    sign = np.where(length == 1, code[kind.starts], 0)
    kinds = np.full(len(length), OTHER, np.uint8)
    kinds[sign == ord("s")] = SHARED
    kinds[sign == ord("b")] = TRUTH
    plain = length == 0
    styled = style.ends > style.starts
    plain[styled] &= ~np.isin(_integers(code, style.of(styled)), dates)
    kinds[plain] = NUMBER
    return kinds


def _integers(code: np.ndarray, spans: _Spans, most: int = _MOST_DIGITS) -> np.ndarray:
    """Return the whole numbers that are written there. Raises Odd where there is none."""
    length = spans.ends - spans.starts
    total = np.zeros(len(length), np.int64)
    if not len(length):
        return total
    longest = int(length.max())
    if longest > most or int(length.min()) < 1:
        raise Odd
    for place in range(longest):
        more = place < length
        digit = code[spans.starts + place] - np.uint8(48)
        _need((digit <= 9) | ~more)
        total = np.where(more, total * 10 + digit, total)
    return total
