"""The lines of the outcome log, typed: a line of another shape is none, and is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

BROKEN, TWICE = "broken lines of the log", "lines of the log that are there twice"
_NO_TIME = "{at} is no time as ISO 8601 has it"


def parse_time(at: object) -> datetime:
    """Read a time as ISO 8601 has it, as UTC; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    try:
        moment = datetime.fromisoformat(at)  # type: ignore[arg-type]
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("time", _NO_TIME, {"at": repr(at)}) from None


def parse_day_or_time(at: object) -> date | datetime | None:
    """Read a day, a time, or "" for none.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(at, str) or len(at) > len("2026-11-28"):
        return parse_time(at)
    try:
        return date.fromisoformat(at) if at else None
    except ValueError:
        raise PydanticCustomError("time", _NO_TIME, {"at": repr(at)}) from None


Time = Annotated[datetime, BeforeValidator(parse_time)]
Name = Annotated[str, Field(min_length=1)]


class Line(BaseModel):
    """What every line has."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)

    at: Time
    experiment: str = ""


class AnswerLine(Line):
    """An answer of a test: who got which arm. `ms` in milliseconds."""

    request_id: Name
    unit: Name
    arm: Name
    control: Name
    treatment: Name
    share: float = Field(ge=0, le=1)
    source: str
    failure: str
    ms: float = Field(ge=0)


class InterleavedLine(Line):
    """A list of two rewriters: documents and their teams, in order."""

    request_id: Name
    unit: Name
    a: Name
    b: Name
    failed: list[str]
    shown: list[Annotated[tuple[str, str], Strict(False)]]


class ShadowLine(Line):
    """A mirrored call."""

    arm: Name
    failure: str = ""
    same: bool = False


class EventLine(BaseModel):
    """What somebody did. `at`: when, or on which day; None where nobody knows."""

    model_config = ConfigDict(strict=True, frozen=True)

    event: Name
    at: Annotated[datetime | date | None, BeforeValidator(parse_day_or_time)]
    request_id: str = ""
    unit: str = ""
    doc_id: str = ""

    def is_before(self, answer: datetime) -> bool:
        """Return whether it is older than an answer; one of unknown time is not, a day alone counts to its end."""
        if isinstance(self.at, datetime):
            return self.at < answer
        return self.at is not None and self.at < answer.date()

    def day(self, answer: datetime) -> str:
        """Return its day (UTC), that of the user's first answer where nobody knows its own."""
        moment = self.at if self.at is not None else answer
        return (moment.date() if isinstance(moment, datetime) else moment).isoformat()


KINDS: dict[str, type[AnswerLine | InterleavedLine | ShadowLine | EventLine]] = {
    "answer": AnswerLine,
    "interleaved": InterleavedLine,
    "shadow": ShadowLine,
    "event": EventLine,
}


def read_lines(
    files: Sequence[Path], tenant_id: str, experiment: str, names: set[str], left_out: Counter[str]
) -> Iterator[AnswerLine | InterleavedLine | ShadowLine | EventLine]:
    """Yield the tenant's lines that matter to a test: its answers and lists, all events and shadow calls.

    Args:
        names: takes the tests that the tenant's lines name.
        left_out: counts lines that a crash has torn, of another shape, or there twice.
    """
    seen: set[int] = set()
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for text in lines:
                if not text.strip():
                    continue
                if (key := hash(text)) in seen:
                    left_out[TWICE] += 1
                    continue
                seen.add(key)
                try:
                    if (line := _read(json.loads(text), tenant_id, experiment, names)) is not None:
                        yield line
                except (ValueError, RecursionError):
                    left_out[BROKEN] += 1


def _read(
    line: Any, tenant_id: str, experiment: str, names: set[str]
) -> AnswerLine | InterleavedLine | ShadowLine | EventLine | None:
    """Return the line, None where it is of another tenant or test.

    Raises:
        ValueError: it has another shape.
    """
    if not isinstance(line, dict) or line.get("kind") not in [*KINDS]:
        raise ValueError
    if line.get("tenant_id") != tenant_id:
        return None
    kind, named = line["kind"], line.get("experiment", "")
    if not isinstance(named, str):
        raise ValueError
    if kind in ("answer", "interleaved"):
        if named:
            names.add(named)
        if named != experiment:
            return None
    return KINDS[kind].model_validate(line)
