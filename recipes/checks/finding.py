"""One line of preflight's table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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


def table(findings: Iterable[Finding], *, coloured: bool = False) -> str:
    """Render one line a finding: level, subject, text; green, yellow and red on a terminal."""
    lines = []
    for finding in findings:
        level = f"{finding.level:<4}"
        if coloured:
            level = f"{COLOURS[finding.level]}{level}{PLAIN}"
        lines.append(f"{level} {finding.subject:<10} {finding.text}")
    return "\n".join(lines)


def refusal(findings: Iterable[Finding]) -> str:
    """Join what is bad to one line; empty when nothing is."""
    return "; ".join(f"{finding.subject}: {finding.text}" for finding in findings if finding.level is Level.BAD)
