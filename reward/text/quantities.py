"""A number with its unit, compared by what it amounts to. Pure.

Months and days are equal within what a month may last. The 12 of B12 is a name's and equals no count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reward.text.measures import LABELS, Unit
from reward.text.numbers import Value, plus, times

Key = tuple[str, Value]
_DAY = 1440  # minutes


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number as it may be compared.

    Args:
        value: without its unit.
        unit: dimension; "" without one: then any unit will do.
        keys: what it equals, as (dimension, amount).
        near: what it equals when the other side measures otherwise: 2个月 and 60天.
    """

    value: Value
    unit: str = ""
    keys: frozenset[Key] = frozenset()
    near: frozenset[Key] = frozenset()

    @property
    def is_bare(self) -> bool:
        return not self.unit or self.unit in LABELS


@dataclass(frozen=True, slots=True)
class Mention:
    """One place of a text that names a number.

    Args:
        ends: one quantity, or the two of a range.
        otherwise: what the place may mean instead: 1/3 is 1 and 3, or a third.
        is_loose: a lone numeral in a word (二建): known when asked for, and never asked for itself.
        may_drop: nobody misses it: 一盒, 这两个, 第一次.
        is_article: a "one" that counts nothing.
        is_ordinal: it has 第 before it.
    """

    text: str
    start: int
    end: int
    ends: tuple[Quantity, ...]
    otherwise: Quantity | None = None
    is_loose: bool = False
    may_drop: bool = False
    is_article: bool = False
    is_ordinal: bool = False

    def is_kept_in(self, known: Known) -> bool:
        """Whether `known` has this number, or one end of the range."""
        return any(known.holds(end) for end in self.ends) or self._is_otherwise_in(known)

    def is_covered_by(self, known: Known) -> bool:
        """Whether `known` has this number, and both ends of a range."""
        return all(known.holds(end) for end in self.ends) or self._is_otherwise_in(known)

    def _is_otherwise_in(self, known: Known) -> bool:
        return self.otherwise is not None and known.holds(self.otherwise)


@dataclass(slots=True)
class Known:
    """The numbers of some texts, to ask whether another one is among them."""

    keys: set[Key] = field(default_factory=set)
    near: set[Key] = field(default_factory=set)
    values: set[Value] = field(default_factory=set)
    bare: set[Value] = field(default_factory=set)

    @classmethod
    def of(cls, mentions: Iterable[Mention]) -> Known:
        known = cls()
        for mention in mentions:
            for end in mention.ends if mention.otherwise is None else (*mention.ends, mention.otherwise):
                known.keys |= end.keys
                known.near |= end.near
                known.values.add(end.value)
                if end.is_bare:
                    known.bare.add(end.value)
        return known

    def holds(self, quantity: Quantity) -> bool:
        """Whether these texts name that quantity, however spelled; without a unit its value is enough."""
        return (
            not self.keys.isdisjoint(quantity.keys)
            or not self.near.isdisjoint(quantity.keys)
            or not self.keys.isdisjoint(quantity.near)
            or quantity.value in self.bare
            or (quantity.is_bare and quantity.value in self.values)
        )


def quantity(value: Value, unit: Unit | None = None) -> Quantity:
    """The quantity of a value in a unit."""
    if unit is None:
        return Quantity(value, "", frozenset({("", value)}))
    amount = times(value, unit.factor)
    keys, near = {(unit.dimension, amount)}, set[Key]()
    if not isinstance(amount, str) and not isinstance(value, str):
        _add_equals(keys, near, value, amount, unit)
    return Quantity(value, unit.dimension, frozenset(keys), frozenset(near))


def _add_equals(keys: set[Key], near: set[Key], value: float, amount: float, unit: Unit) -> None:
    if unit.dimension == "month":
        keys.add(("months" if unit.factor < 12 else "years", value))
        days = {28 * amount, 30 * amount, 31 * amount, round(amount * 365 / 12), round(amount * 366 / 12)}
        if amount <= 12:
            days |= set(range(int(28 * amount), int(31 * amount) + 1))
        if unit.factor == 12:
            days |= {360 * value, 364 * value}
        near |= {("minute", times(day, _DAY)) for day in days}
    elif unit.dimension == "age":
        near |= {("months", times(value, 12)), ("years", value)}
    elif unit.dimension == "minute" and unit.factor == _DAY:
        near.add(("dayname", value))
    elif unit.dimension == "zhe":
        near |= {("percent", times(value, 10)), ("percent", plus(100, -10 * value))}
    elif unit.dimension == "percent":
        near.add(("", times(value, 0.01)))


def clock(hour: int, minute: int, half: str | None) -> Quantity:
    """A time of day, or after all a count of 点; `half` is "am", "pm", or "" where the text does not say.

    Without (None) it is not even sure that 两点 is an hour.
    """
    at = hour % 24 * 60 + minute
    if half == "pm" and hour < 12:
        times_of_day: set[Key] = {("clock", at + 720)}
    elif hour > 12 or half == "am":
        times_of_day = {("clock", at)}
    else:
        times_of_day = {("clock", at % 720), ("clock", at % 720 + 720)}
    near: set[Key] = set() if minute else {("点", hour)}
    if half is None:
        times_of_day |= near
    return Quantity(f"{hour}:{minute:02}" if minute else hour, "clock", frozenset(times_of_day), frozenset(near))


def named(value: Value, name: str) -> Quantity:
    """A number that belongs to a name: the 12 of B12, the 11 of 双11."""
    # CoQ10 is Q10, VD3 is D3.
    is_word = name.isascii() and name.isalpha()
    short: set[Key] = {(name[-1], value)} if is_word and len(name) <= 3 else set()
    # win10 is windows10.
    short |= {(name[:3], value)} if is_word else set()
    return Quantity(value, "name", frozenset({(name, value)} | short))


def summed(one: Quantity, other: Quantity) -> Quantity | None:
    """1小时 and 30分钟 together; None where the two do not add up to one amount."""
    if one.unit != other.unit or one.unit not in ("minute", "month"):
        return None
    amounts = [dict(each.keys).get(each.unit) for each in (one, other)]
    if not all(isinstance(amount, int | float) for amount in amounts):
        return None
    return quantity(plus(amounts[0], amounts[1]), Unit(one.unit))  # type: ignore[arg-type]


def in_unit_of(bare: Quantity, model: Quantity) -> Quantity:
    """The bare end of a range in the unit of its other end."""
    amount = dict(model.keys).get(model.unit)
    numbers = isinstance(amount, int | float) and isinstance(model.value, int | float) and model.value
    factor = amount / model.value if numbers else 1.0  # type: ignore[operator]
    return quantity(bare.value, Unit(model.unit, factor))
