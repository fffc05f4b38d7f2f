"""Look at a round's answers again, with what the teacher has suggested since.

    python -m evaluation.medical_inspect --root outputs/medical --round r1

Merges the answers with rule scores, the teacher's opinion, its better answers (`reward.ask_teacher --samples`, scored
by the rules as if the policy had written them) and marks of what is odd, into `reports/rl_stage/samples_<round>.csv`
and `.md`. Exit code 1: fewer than 50 answers to high-risk questions, which is what a round's review needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.medical.grading import GradedAnswer
from evaluation.medical.round_files import JUDGEMENTS_FILE, read_suggestions
from evaluation.medical.samples_report import LEAST_HIGH_RISK, inspect_answers, write_samples
from reward.records.commands import command
from reward.records.files import BadInput, read_records
from reward.settings.medical_run import load_medical_settings


@command
def main(argv: list[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.medical_inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=Path("outputs/medical"), help="default: %(default)s")
    parser.add_argument("--round", required=True, help="name of the round")
    parser.add_argument("--version", choices=("rl", "sft"), default="rl", help="whose answers (default: %(default)s)")
    args = parser.parse_args(argv)
    model, reports = args.root / "models" / "rl" / args.round, args.root / "reports" / "rl_stage"
    answers = read_answers(model / "answers.jsonl")
    suggested = read_suggestions(args.root / "data" / "rl" / JUDGEMENTS_FILE)
    inspected = inspect_answers(answers, suggested, load_medical_settings(model, None), args.version)
    name = f"samples_{args.round}" if args.version == "rl" else f"samples_{args.round}_{args.version}"
    for path in write_samples(reports, name, inspected):
        print(path)
    risky, odd = sum(one.high_risk for one in inspected), sum(bool(one.anomalies) for one in inspected)
    better = sum(bool(one.suggested) for one in inspected)
    print(f"{len(inspected)} answers, {risky} to high-risk questions, {odd} with marks, {better} with a better answer")
    if risky < LEAST_HIGH_RISK:
        print(f"fewer than {LEAST_HIGH_RISK} high-risk answers: hold more out (build_medical)", file=sys.stderr)
        return 1
    return 0


def read_answers(path: Path) -> list[GradedAnswer]:
    """Read `answers.jsonl` of a round.

    Raises:
        BadInput: the file is missing or empty, or a line holds no graded answer (names file, row and field).
    """
    answers = list(read_records(path, GradedAnswer))
    if not answers:
        raise BadInput(f"{path}: holds no answer; run export.medical_round first")
    return answers


if __name__ == "__main__":
    raise SystemExit(main())
