"""Ids as their system wrote them; those that a spreadsheet or a float has rounded are told apart."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_EXACT = 2**53  # above it, not every whole number is one that a float can hold
_SCIENTIFIC = r"^\s*[+-]?[0-9](?:[.,][0-9]+[eE]\+?|[eE]\+)[0-9]{2,3}\s*$"  # Excel shows 4.20E+18
_FIFTEEN_DIGITS = r"^\s*[1-9][0-9]{14}000+\s*$"  # Excel keeps 15; that many zeros are no chance
ROUNDED = "rounded by Excel ({}): format the column as text"


def scientific(ids: pa.Array) -> list[int]:
    """Return the places of Arrow strings that are numbers in scientific notation."""
    return pc.indices_nonzero(pc.match_substring_regex(ids, _SCIENTIFIC)).to_pylist()


def cut_to_fifteen(ids: pa.Array) -> list[int]:
    """Return the places of Arrow strings of 18 digits and more of which Excel has kept 15."""
    return pc.indices_nonzero(pc.match_substring_regex(ids, _FIFTEEN_DIGITS)).to_pylist()


def number_as_id(number: float) -> str:
    """Write a number as the id that it is: 17.0 is 17.

    Raises:
        ValueError: a number too large for its digits to be exact.
    """
    if abs(number) > _EXACT:
        raise ValueError(f"a rounded number ({number:.15g}): write ids as text")
    return str(int(number)) if number.is_integer() else str(number)
