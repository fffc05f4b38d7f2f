"""One line of preflight's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from reward.records.files import BadInput


class Level(StrEnum):
    OK = "ok"
    WARNING = "warn"
    BAD = "BAD"


COLOURS = {Level.OK: "\x1b[32m", Level.WARNING: "\x1b[33m", Level.BAD: "\x1b[31m"}
PLAIN = "\x1b[0m"


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found; `BAD` refuses the run."""

    level: Level
    subject: str
    text: str


def ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def warning(subject: str, text: str) -> Finding:
    return Finding(Level.WARNING, subject, text)


def bad(subject: str, text: str) -> Finding:
    return Finding(Level.BAD, subject, text)


@contextmanager
def bad_input_as(subject: str, findings: list[Finding]) -> Iterator[None]:
    """Turn a `BadInput` of the body into one more finding, so that the checks after it still run."""
    try:
        yield
    except BadInput as error:
        findings.append(bad(subject, str(error)))


def table(findings: Iterable[Finding], *, coloured: bool = False) -> str:
    """Render one line a finding: level, subject, text; green, yellow and red on a terminal."""
    lines = []
    for finding in findings:
        level = f"{finding.level:<4}"
        if coloured:
            level = f"{COLOURS[finding.level]}{level}{PLAIN}"
        lines.append(f"{level} {finding.subject:<10} {finding.text}")
    return "\n".join(lines)


def refusals(findings: Iterable[Finding]) -> list[str]:
    """List what is bad, a line each."""
    return [f"{finding.subject}: {finding.text}" for finding in findings if finding.level is Level.BAD]
