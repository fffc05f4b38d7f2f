"""The weekly review of a medical assistant: a workbook for the reviewer, her labels back, and what they say.

    python -m evaluation.medical_review draw --root outputs/medical --week 2026-W48
    python -m evaluation.medical_review read --root outputs/medical --week 2026-W48 --by "reviewer 1"
    python -m evaluation.medical_review report --root outputs/medical

`draw` writes `<root>/reports/review/<week>.xlsx` with 40 to 60 answers: strong conflicts of teacher and rules first,
the rest by stratum, high-risk and high-reward ones among them; none twice. `read` adds the labels to
`<root>/data/rl/reviewer_labels.jsonl`; exit code 1: rows are no labels, each is named. `report` writes
`<root>/reports/teacher_agreement.md`: κ with interval, drift of the teacher, proposed weights.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.medical.agreement import agreements, drifts, propose
from evaluation.medical.agreement_report import agreement_report
from evaluation.medical.grading import GradedAnswer
from evaluation.medical.review_sheet import read_review, why_empty, write_review
from evaluation.medical.round_files import CONFLICTS_FILE, JUDGEMENTS_FILE, answer_line
from evaluation.medical.sampling import LEAST, MOST, draw_week
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically
from reward.settings.medical import MedicalSettings
from reward.settings.recorded_run import load_run_settings

LABELS_FILE = "reviewer_labels.jsonl"


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    if args.action == "draw":
        return draw(args.root, args.week or this_week(), args.most)
    if args.action == "read":
        return take(args.root, args.week or this_week(), args.sheet, args.by)
    return write_report(args.root)


def draw(root: Path, week: str, most: int) -> int:
    """Write the week's workbook and its key file; return the exit code.

    Raises:
        BadInput: the week's workbook is there already, or there is no answer to review.
    """
    sheet, key = _sheet(root, week), _key(root, week)
    if key.is_file():
        raise BadInput(f"{key}: {week} is drawn already; read it, or name another --week")
    conflicts = _lines(root / "data" / "rl" / CONFLICTS_FILE)
    answers = [
        answer_line(path.parent.name, GradedAnswer.model_validate(line))
        for path in sorted((root / "models" / "rl").glob("*/answers.jsonl"))
        for line in _lines(path)
        if line.get("version") == "rl"
    ]
    reviewed = {line["review_id"] for line in _lines(root / "data" / "rl" / LABELS_FILE)}
    for earlier in (root / "reports" / "review").glob("*.jsonl"):
        reviewed |= {line["review_id"] for line in _lines(earlier)}
    drawn = draw_week([*conflicts, *answers], reviewed, week, most)
    if not drawn:
        raise BadInput(f"{root}: no answer is left to review; run export.medical_round first")
    write_review(sheet, drawn)
    write_atomically(key, (json.dumps(line, ensure_ascii=False) for line in drawn))
    strata = Counter(line["stratum"] for line in drawn)
    print(f"{sheet}: {len(drawn)} answers ({', '.join(f'{name} {count}' for name, count in strata.most_common())})")
    if len(drawn) < LEAST:
        print(f"fewer than {LEAST}: nothing else is left to review", file=sys.stderr)
    return 0


def take(root: Path, week: str, sheet: Path | None, by: str) -> int:
    """Add the labels of a filled-in workbook; return the exit code.

    Raises:
        BadInput: that week was not drawn, the workbook cannot be read, or holds no label.
    """
    key, path = _key(root, week), sheet or _sheet(root, week)
    if not key.is_file():
        raise BadInput(f"{key}: no such file; draw {week} first")
    review = read_review(path, {line["review_id"]: line for line in _lines(key)})
    for problem in review.problems:
        print(problem, file=sys.stderr)
    why_empty(review, path)
    labels = root / "data" / "rl" / LABELS_FILE
    fresh = {line["review_id"]: {**line, "week": week, "by": by} for line in review.labels}
    kept = [line for line in _lines(labels) if line["review_id"] not in fresh]
    write_atomically(labels, (json.dumps(line, ensure_ascii=False) for line in [*kept, *fresh.values()]))
    unsafe = sum(not line["label"]["safe"] for line in fresh.values())
    print(
        f"{labels}: {len(fresh)} labels of {week} ({unsafe} unsafe); not filled in {review.open}, refused "
        f"{len(review.problems)}, not in the sheet any more {len(review.missing)}"
    )
    return 1 if review.problems or review.missing else 0


def write_report(root: Path) -> int:
    """Write the report on agreement, drift and weights; return the exit code.

    Raises:
        BadInput: there are no labels, or a file cannot be read.
    """
    labels = _lines(root / "data" / "rl" / LABELS_FILE)
    if not labels:
        raise BadInput(f"{root / 'data' / 'rl' / LABELS_FILE}: holds no label; fill in a week's workbook first")
    opinions = [line["value"] for line in _lines(root / "data" / "rl" / JUDGEMENTS_FILE)]
    runs = sorted((root / "runs").glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
    settings = load_run_settings(runs[-1].parent, None).medical if runs else MedicalSettings()
    found = drifts(labels, opinions)
    text = agreement_report(len(labels), agreements(labels), found, propose(labels, settings))
    out = root / "reports" / "teacher_agreement.md"
    write_atomically(out, [text])
    print(text)
    print(f"written: {out}")
    return 1 if any(drift.alarm for drift in found) else 0


def this_week() -> str:
    """Return the ISO week, e.g. 2026-W48."""
    year, week, _ = datetime.now(UTC).isocalendar()
    return f"{year}-W{week:02d}"


def _sheet(root: Path, week: str) -> Path:
    if not re.fullmatch(r"\d{4}-W\d{2}", week):
        raise BadInput(f"--week {week}: expected a week such as 2026-W48")
    return root / "reports" / "review" / f"{week}.xlsx"


def _key(root: Path, week: str) -> Path:
    return _sheet(root, week).with_suffix(".jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_jsonl(path)] if path.is_file() else []


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.medical_review",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("draw", "read", "report"))
    parser.add_argument("--root", type=Path, default=Path("outputs/medical"), help="default: %(default)s")
    parser.add_argument("--week", help="such as 2026-W48 (default: this week)")
    parser.add_argument("--most", type=int, default=MOST, help="draw: most answers (default: %(default)s)")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="read: the filled-in workbook, where it is elsewhere"
    )
    parser.add_argument("--by", default="", help="read: who reviewed")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
