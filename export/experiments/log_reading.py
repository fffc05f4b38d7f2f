"""The outcome log and files of events → users of each arm and what they did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from export.experiments.event_file import read_events
from export.experiments.log_lines import AnswerLine, EventLine, InterleavedLine, ShadowLine, read_lines
from reward.records.files import BadInput

LOG_FILES = "outcomes_*.jsonl"


@dataclass
class Seen:
    """One user (or session, or request without either) in a test. `at`: of the first answer, UTC."""

    arm: str
    at: datetime
    answers: int = 0
    originals: int = 0


@dataclass
class Impression:
    """One interleaved list: who shows it, its documents and their teams, and what was clicked."""

    unit: str
    at: datetime
    a: str
    b: str
    shown: Sequence[tuple[str, str]]
    clicked: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Split:
    """`share` of the users get the arm `treatment`, the others `control`."""

    control: str
    treatment: str
    share: float


@dataclass
class TestLog:
    """One test of the log.

    Args:
        units: by their hash.
        events: event → the units that had it, each with the day of its first one.
        split: as it was at the end of the log; None of an interleaving.
        left_out: why a line or user does not count → how many.
        milliseconds: of each arm's answers, fallbacks too.
        failures: (arm, why the original query was the answer) → answers.
    """

    units: dict[str, Seen] = field(default_factory=dict)
    events: dict[str, dict[str, str]] = field(default_factory=dict)
    split: Split | None = None
    impressions: dict[str, Impression] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    shadow: dict[str, Counter[str]] = field(default_factory=dict)


def read_test(folder: Path, tenant_id: str, experiment: str, event_files: Sequence[Path]) -> TestLog:
    """Read one tenant's test: an A/B test, an interleaving, or both under one name.

    A user counts with the arm of the first answer. Users of two arms, and users first seen under another split than the
    last one, are left out and counted: their arms are not comparable. So are lists of other rewriters than the last
    one's.

    Raises:
        BadInput: no log, no such test in it, or a file of events cannot be used.
    """
    files = sorted(folder.glob(LOG_FILES))
    if not files:
        raise BadInput(f"{folder}: no outcome log there ({LOG_FILES})")
    reading, names = _Reading(), set[str]()
    test = reading.test
    for line in read_lines(files, tenant_id, experiment, names, test.left_out):
        reading.add(line)
    if experiment not in names:
        found = ", ".join(sorted(names)) or "none"
        raise BadInput(f"{folder}: no test {experiment!r} of tenant {tenant_id!r} in the log (found: {found})")
    reading.leave_out_incomparable()
    if test.split is None and not test.impressions:
        why = ", ".join(f"{count} {what}" for what, count in test.left_out.items())
        raise BadInput(f"{folder}: nothing of test {experiment!r} can be used: {why}")
    for event in reading.events:
        reading.add_event(event)
    for path in event_files:
        for event in read_events(path, folder):
            reading.add_event(event)
    return test


class _Reading:
    """Gathers the lines of one test.

    Args:
        units_of: request → its user, None where several users share the request's id.
    """

    def __init__(self) -> None:
        self.test = TestLog()
        self.events: list[EventLine] = []
        self.units_of: dict[str, str | None] = {}
        self.splits: dict[str, Split] = {}
        self.mixed: set[str] = set()

    def add(self, line: AnswerLine | InterleavedLine | ShadowLine | EventLine) -> None:
        match line:
            case EventLine():
                self.events.append(line)
            case ShadowLine():
                outcomes = self.test.shadow.setdefault(line.arm, Counter())
                outcomes[line.failure or ("same" if line.same else "different")] += 1
            case AnswerLine():
                self._add_answer(line)
            case InterleavedLine():
                self._add_impression(line)

    def leave_out_incomparable(self) -> None:
        """Keep only users whose arm was drawn like everybody else's, and lists of one pair of rewriters."""
        test = self.test
        for unit in self.mixed:
            del test.units[unit]
            test.left_out["users of two arms"] += 1
        for unit, split in self.splits.items():
            if split != test.split and unit in test.units:
                del test.units[unit]
                test.left_out["users first seen under another split"] += 1
        if test.impressions:
            last = next(reversed(test.impressions.values()))
            for request_id, one in list(test.impressions.items()):
                if (one.a, one.b) != (last.a, last.b):
                    del test.impressions[request_id]
                    test.left_out["lists of other rewriters"] += 1

    def _add_answer(self, line: AnswerLine) -> None:
        test, unit = self.test, line.unit
        test.split = Split(line.control, line.treatment, line.share)
        if line.arm not in (line.control, line.treatment):
            test.left_out["answers of an arm that is none of the test's"] += 1
            return
        if self.units_of.setdefault(line.request_id, unit) != unit:
            self.units_of[line.request_id] = None
        self.splits.setdefault(unit, test.split)
        seen = test.units.setdefault(unit, Seen(line.arm, line.at))
        if seen.arm != line.arm:
            self.mixed.add(unit)
        seen.answers += 1
        seen.originals += line.source == "original"
        test.milliseconds.setdefault(line.arm, []).append(line.ms)
        if line.failure:
            test.failures[line.arm, line.failure] += 1

    def _add_impression(self, line: InterleavedLine) -> None:
        test = self.test
        if line.failed:
            test.left_out["lists without both rewrites"] += 1
        elif line.request_id in test.impressions:
            test.left_out["lists of a request id that was there before"] += 1
        else:
            test.impressions[line.request_id] = Impression(line.unit, line.at, line.a, line.b, line.shown)

    def add_event(self, line: EventLine) -> None:
        """Join an event by request, else by user; what belongs to nobody of the test is counted."""
        test, request_id = self.test, line.request_id
        impression = test.impressions.get(request_id)
        if impression is not None and line.event == "click" and line.doc_id:
            impression.clicked.add(line.doc_id)
        if request_id in self.units_of and self.units_of[request_id] is None and not line.unit:
            test.left_out["events of a request id that several users share"] += 1
            return
        unit = self.units_of.get(request_id) or line.unit
        if unit in test.units and line.is_before(test.units[unit].at):
            test.left_out["events before the user's first answer"] += 1
        elif unit in test.units:
            days = test.events.setdefault(line.event, {})
            day = line.day(test.units[unit].at)
            days[unit] = min(day, days.get(unit, day))
        elif impression is None:
            test.left_out["events of nobody in this test"] += 1
