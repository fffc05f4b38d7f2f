"""Ask the teacher about what it has not seen: answers of a run that it was down for, or samples whose quality counts.

    python -m reward.ask_teacher --run runs/r1 --teacher deepseek_v3 --ledger ledger.sqlite
    python -m reward.ask_teacher --samples data/rl/eval_gold.jsonl --teacher deepseek_r1 --ledger ledger.sqlite \\
        --out reports/gold_quality.jsonl

`--run` asks with the training template; `reward.replay --verdicts` then scores those rollouts anew. `--samples` reviews
reference answers with the data-quality template, high-risk ones first, and writes an opinion a line, with a better
answer where the teacher offers one. Opinions lie in the ledger: an answered question is not paid for twice, so the same
command resumes. Exit code 1: some questions stayed unanswered; they are counted by reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward.export_ledger import export_teacher
from reward.judge.teacher import Teacher, load_teacher, priority_of, teaching
from reward.judge.teacher_protocol import TeacherMode
from reward.records.call import ServiceFailure
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically
from reward.records.sample import Sample, read_samples
from reward.rollouts.late_verdicts import lacks_verdict
from reward.rollouts.rollout_log import read_rollouts
from reward.settings.recipe import BudgetLimits, LedgerSettings

Question = tuple[Sample, str]


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    mode: TeacherMode = "quality" if args.samples else "training"
    questions = reviewable(args.samples) if args.samples else unanswered(args.run)
    if not questions:
        print(f"{args.run or args.samples[0]}: the teacher has seen every answer, nothing to ask")
        return 0
    profile = load_teacher(args.teacher)
    ledger = LedgerSettings(path=args.ledger, run_id=args.run_id, run=BudgetLimits(cny=args.budget_cny))
    tenant = questions[0][0].metadata.tenant_id

    async def ask() -> list[dict[str, Any] | ServiceFailure]:
        async with teaching(profile, ledger, tenant, mode) as teacher:
            return await ask_all(teacher, questions)

    answers = asyncio.run(ask())
    failures = Counter(answer.kind.value for answer in answers if isinstance(answer, ServiceFailure))
    opinions = [answer for answer in answers if isinstance(answer, dict)]
    if args.out:
        write_atomically(args.out, (json.dumps(opinion, ensure_ascii=False) for opinion in opinions))
    if args.judgements:
        export_teacher(args.ledger, args.judgements, args.judgements.with_name("teacher_usage.csv"))
    flagged = sum(opinion["safety_flag"] for opinion in opinions)
    better = sum(bool(opinion.get("best_answer")) for opinion in opinions)
    print(f"{len(questions)} asked, {len(opinions)} answered, {flagged} flagged, {better} with a better answer")
    for reason, count in failures.most_common():
        first = next(a.reason for a in answers if isinstance(a, ServiceFailure) and a.kind.value == reason)
        print(f"unanswered: {count} ({reason}: {first})", file=sys.stderr)
    return 1 if failures else 0


def unanswered(run: Path) -> list[Question]:
    """Return the answers of a run that the teacher was asked about in vain, each once.

    Raises:
        BadInput: the run has no rollouts, or they cannot be read.
    """
    found: dict[tuple[str, str], Question] = {}
    for rollout in read_rollouts(run):
        if lacks_verdict(rollout):
            answer = rollout.completion.strip()
            found.setdefault((rollout.sample.original_query, answer), (rollout.sample, answer))
    return list(found.values())


def reviewable(paths: Sequence[Path]) -> list[Question]:
    """Return the samples of the files that have a reference answer.

    Raises:
        BadInput: a file cannot be read, or no sample has an answer.
    """
    samples = [sample for path in paths for sample in read_samples(path)]
    questions = [(sample, sample.rewritten_query) for sample in samples if sample.rewritten_query]
    if not questions:
        raise BadInput(f"{paths[0]}: no sample has a reference answer (rewritten_query) to review")
    return questions


async def ask_all(teacher: Teacher, questions: Sequence[Question]) -> list[dict[str, Any] | ServiceFailure]:
    """Ask about every answer, the riskiest first, and return the opinions in the order of `questions`."""
    order = sorted(range(len(questions)), key=lambda place: -priority_of(questions[place][0]))
    asked = await asyncio.gather(*(teacher.ask(*questions[place]) for place in order))
    answers = {place: answer.value for place, answer in zip(order, asked, strict=True)}
    return [answers[place] for place in range(len(questions))]


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m reward.ask_teacher", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, metavar="DIR", help="run whose unanswered rollouts are asked about")
    what.add_argument("--samples", type=Path, nargs="+", metavar="FILE", help="samples with reference answers")
    parser.add_argument("--teacher", required=True, help="name of a profile, or its YAML file")
    parser.add_argument("--ledger", type=Path, required=True, metavar="FILE", help="ledger.sqlite, made if missing")
    parser.add_argument("--run-id", default="ask_teacher", help="whose budget the calls count against")
    parser.add_argument("--budget-cny", type=float, help="the most yuan to spend under that run id")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write an opinion a line to this .jsonl file")
    parser.add_argument("--judgements", type=Path, metavar="FILE", help="also write teacher_judgements.jsonl here")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
