"""The outcome log and files of events → users of each arm and what they did."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.serving.outcome_log import KEY_FILE, read_key, unit_hash
from guard.personal.masking import mask_id
from reward.records.files import BadInput, read_jsonl

LOG_FILES = "outcomes_*.jsonl"


@dataclass
class Seen:
    """One user (or session, or request without either) in a test. `at`: of the first answer, UTC, ISO 8601."""

    arm: str
    at: str
    answers: int = 0
    originals: int = 0


@dataclass
class Impression:
    """One interleaved list: who shows it, its documents and their teams, and what was clicked."""

    unit: str
    at: str
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
    last one, are left out and counted: their arms are not comparable.

    Raises:
        BadInput: no log, no such test in it, or a file of events cannot be used.
    """
    files = sorted(folder.glob(LOG_FILES))
    if not files:
        raise BadInput(f"{folder}: no outcome log there ({LOG_FILES})")
    test, names = TestLog(), set[str]()
    units_of: dict[str, str] = {}
    splits: dict[str, Split] = {}
    events: list[Mapping[str, Any]] = []
    mixed: set[str] = set()
    for line in _lines(files, test.left_out):
        if line.get("tenant_id") != tenant_id:
            continue
        kind = line["kind"]
        if kind == "event":
            events.append(line)
        elif kind == "shadow":
            outcomes = test.shadow.setdefault(str(line.get("arm")), Counter())
            outcomes[line.get("failure") or ("same" if line.get("same") else "different")] += 1
        elif line.get("experiment"):
            names.add(line["experiment"])
        if line.get("experiment") != experiment:
            continue
        try:
            if kind == "interleaved":
                _add_impression(test, line)
            elif kind == "answer":
                _add_answer(test, line, units_of, splits, mixed)
        except (KeyError, TypeError, ValueError):
            test.left_out["broken lines of the log"] += 1
    if experiment not in names:
        found = ", ".join(sorted(names)) or "none"
        raise BadInput(f"{folder}: no test {experiment!r} of tenant {tenant_id!r} in the log (found: {found})")

    # Only users whose arm was drawn like everybody else's.
    for unit in mixed:
        del test.units[unit]
        test.left_out["users of two arms"] += 1
    for unit, split in splits.items():
        if split != test.split and unit in test.units:
            del test.units[unit]
            test.left_out["users first seen under another split"] += 1
    _add_events(test, events, units_of)
    for path in event_files:
        _add_events(test, _event_rows(path, folder), units_of)
    return test


def _add_answer(
    test: TestLog, line: Mapping[str, Any], units_of: dict[str, str], splits: dict[str, Split], mixed: set[str]
) -> None:
    unit, arm = line["unit"], line["arm"]
    test.split = Split(line["control"], line["treatment"], line["share"])
    units_of[line["request_id"]] = unit
    splits.setdefault(unit, test.split)
    seen = test.units.setdefault(unit, Seen(arm, line["at"]))
    if seen.arm != arm:
        mixed.add(unit)
    seen.answers += 1
    seen.originals += line["source"] == "original"
    test.milliseconds.setdefault(arm, []).append(line["ms"])
    if line["failure"]:
        test.failures[arm, line["failure"]] += 1


def _add_impression(test: TestLog, line: Mapping[str, Any]) -> None:
    if line["failed"]:
        test.left_out["lists without both rewrites"] += 1
        return
    shown = [(str(document), str(team)) for document, team in line["shown"]]
    test.impressions[line["request_id"]] = Impression(line["unit"], line["at"], line["a"], line["b"], shown)


def _add_events(test: TestLog, events: Sequence[Mapping[str, Any]], units_of: Mapping[str, str]) -> None:
    """Join events by request, else by user; what belongs to nobody of the test is counted."""
    for line in events:
        request_id, document = line.get("request_id", ""), line.get("doc_id", "")
        unit = units_of.get(request_id) or line.get("unit", "")
        impression = test.impressions.get(request_id)
        if impression is not None and line.get("event") == "click" and document:
            impression.clicked.add(document)
        if unit in test.units and _is_before(line["at"], test.units[unit].at):
            test.left_out["events before the user's first answer"] += 1
        elif unit in test.units:
            days = test.events.setdefault(str(line.get("event")), {})
            day = (line["at"] or test.units[unit].at)[:10]
            days[unit] = min(day, days.get(unit, day))
        elif impression is None:
            test.left_out["events of nobody in this test"] += 1


def _lines(files: Sequence[Path], left_out: Counter[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of the log; a line that a crash has torn is counted."""
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for text in lines:
                if not text.strip():
                    continue
                try:
                    line = json.loads(text)
                    yield {**line, "kind": line["kind"], "at": line["at"]}
                except (ValueError, KeyError, TypeError):
                    left_out["broken lines of the log"] += 1


def _event_rows(path: Path, folder: Path) -> list[Mapping[str, Any]]:
    """Read a CSV or JSONL file of events: `event`, and `request_id`, `user_id` or `session_id`; `at` (ISO 8601) and
    `doc_id` may be missing.

    Raises:
        BadInput: the file is missing, or a row lacks what it needs.
    """
    if path.suffix == ".jsonl":
        rows = [(row, {key: str(value) for key, value in record.items()}) for row, record in read_jsonl(path)]
    elif path.suffix == ".csv":
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with path.open(encoding="utf-8-sig", newline="") as table:
            rows = [(row, dict(record)) for row, record in enumerate(csv.DictReader(table), start=2)]
    else:
        raise BadInput(f"{path}: expected a .csv or .jsonl file of events")
    if not (folder / KEY_FILE).is_file():
        raise BadInput(f"{folder / KEY_FILE}: missing, so users of {path} cannot be found in the log")
    key = read_key(folder)
    events: list[Mapping[str, Any]] = []
    for row, record in rows:
        who = record.get("user_id") or record.get("session_id") or ""
        request_id = record.get("request_id") or ""
        if not record.get("event") or not (who or request_id):
            raise BadInput(f"{path}: row {row}: needs event, and request_id, user_id or session_id")
        _check_time(record.get("at") or "", f"{path}: row {row}")
        events.append(
            {
                "event": record["event"],
                "request_id": request_id,
                "unit": unit_hash(key, who),
                "doc_id": mask_id(record.get("doc_id") or ""),
                "at": record.get("at") or "",
            }
        )
    return events


def _is_before(event: str, answer: str) -> bool:
    """Return whether an event is older than an answer; one of unknown time is not, a day alone counts to its end."""
    if len(event) <= len("2026-11-28"):
        return bool(event) and event < answer[: len(event)]
    return _moment(event) < _moment(answer)


def _moment(at: str) -> datetime:
    """Read a time as ISO 8601 has it; without a zone it is UTC."""
    moment = datetime.fromisoformat(at)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _check_time(at: str, where: str) -> None:
    try:
        if at:
            _moment(at)
    except ValueError:
        raise BadInput(f"{where}: at: {at!r} is no time as ISO 8601 has it") from None
