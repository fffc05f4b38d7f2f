"""Look at a run's rollouts or at samples: a page to browse, all rows as CSV, the telling ones as Markdown.

    python -m evaluation.inspect --run outputs/rl/fivedoctors --out outputs/inspect/fivedoctors
    python -m evaluation.inspect --samples rl_train.jsonl --out outputs/inspect/data
    python -m evaluation.inspect --run outputs/rl/fivedoctors --out outputs/inspect/fivedoctors --review 100
    python -m evaluation.inspect --read-review review.csv --pairs canary.jsonl

`--review` also writes a sheet of pairs for people to judge, without saying which rewrite is whose; `--read-review`
turns the filled-in sheet into pairs for the canary (`reward.canary`, `reward.judge_agreement`). Exit code 1: lines of
the log or rows of the sheet are broken; they are named and counted, and the rest is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from evaluation.inspection.choice import Choice
from evaluation.inspection.page import render_page
from evaluation.inspection.review import PairDraw, read_review, write_review
from evaluation.inspection.rows import Row, rollout_rows, sample_rows
from evaluation.inspection.tables import COLUMNS, cells_of, markdown
from evaluation.markdown_table import shorten
from evaluation.significance import win_rate
from reward.records.commands import command
from reward.records.files import BadInput, first_problem, replacing, write_atomically
from reward.records.sample import Sample
from reward.records.spreadsheet import ENCODING, CsvTable
from reward.rollouts.rollout_log import read_rollouts

PAGE_FILE, CSV_FILE, MARKDOWN_FILE, REVIEW_FILE = "index.html", "rows.csv", "rows.md", "review.csv"
MOST_ROWS = 3000
_NAMED = 20  # broken lines


class Broken:
    """Counts broken lines and names the first ones."""

    def __init__(self) -> None:
        self.count = 0
        self.named: list[str] = []

    def add(self, path: Path, row: int, problem: str) -> None:
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(f"{path}: row {row}: {shorten(problem)}")


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    if args.read_review:
        return take_review(args.read_review, args.pairs)
    broken = Broken()
    if args.run:
        rows = rollout_rows(read_rollouts(args.run, broken.add))
    else:
        rows = sample_rows(_samples(args.samples, broken))
    source = args.run or args.samples
    return inspect(rows, broken, args.out, source=source, most=args.rows, review=args.review, seed=args.seed)


def inspect(
    rows: Iterable[Row], broken: Broken, out: Path, *, source: Path, most: int, review: int = 0, seed: int = 0
) -> int:
    """Write page, CSV and Markdown of `rows`, and a sheet of `review` pairs; return the exit code.

    Args:
        broken: is filled while `rows` is read.
        most: rows of the page and of the Markdown's tables.

    Raises:
        BadInput: there is no row at all, or a file cannot be written.
    """
    choice, pairs = Choice(most, seed), PairDraw(review, seed)
    out.mkdir(parents=True, exist_ok=True)
    # One pass: every row goes to the CSV file, and to the draws.
    with (
        replacing(out / CSV_FILE) as partial,
        partial.open("w", encoding=ENCODING, newline="", errors="replace") as file,
    ):
        table = CsvTable(file, COLUMNS)
        for row in rows:
            table.write(cells_of(row))
            choice.add(row)
            if review:
                pairs.add(row)
        if not choice.counts.rows:
            first = f"; {broken.named[0]}" if broken.named else ""
            raise BadInput(f"{source}: holds no row that can be read{first}")
    shown, title = choice.rows(), f"Inspect {source.resolve().name}"
    page = render_page(shown, choice.counts, broken.named, broken.count, title=title, source=str(source))
    write_atomically(out / PAGE_FILE, [page])
    text = markdown(shown, choice.counts, broken.named, broken.count, title)
    write_atomically(out / MARKDOWN_FILE, [text.encode("utf-8", "replace").decode()])
    size = (out / PAGE_FILE).stat().st_size / 1e6
    print(
        f"{choice.counts.rows} rows, {len(shown)} on the page ({size:.1f} MB): "
        f"{out / PAGE_FILE}, {CSV_FILE}, {MARKDOWN_FILE}"
    )
    if review:
        drawn = pairs.rows()
        write_review(out / REVIEW_FILE, drawn)
        print(f"{out / REVIEW_FILE}: {len(drawn)} pairs to judge; fill in the column preferred with a, b or tie")
    for line in broken.named:
        print(line, file=sys.stderr)
    if broken.count:
        print(f"{broken.count} broken lines were passed over", file=sys.stderr)
    return 1 if broken.count else 0


def take_review(sheet: Path, pairs: Path) -> int:
    """Write what people said as canary pairs; return the exit code.

    Raises:
        BadInput: the sheet cannot be read, or holds no label.
    """
    review = read_review(sheet, f"review {sheet.name}")
    for problem in review.problems:
        print(problem, file=sys.stderr)
    if not review.pairs:
        raise BadInput(f"{sheet}: no row says which rewrite is preferred ({review.open} rows are blank)")
    write_atomically(pairs, [pair.model_dump_json() for pair in review.pairs])
    print(f"{pairs}: {len(review.pairs)} pairs; {review.open} rows not judged, {len(review.problems)} problems")
    result = win_rate([float(one) for one in review.policy], [0.0] * len(review.policy))
    if result.rate is not None and result.interval is not None:
        low, high = result.interval
        print(
            f"people prefer the policy's rewrite in {result.win} of {result.win + result.loss} decided pairs: "
            f"{result.rate:.0%} (95 % interval {low:.0%} to {high:.0%})"
        )
    if len({pair.preferred for pair in review.pairs}) < 2:
        print(f"{pairs}: all labels are alike: a canary needs at least two different ones", file=sys.stderr)
    return 1 if review.problems else 0


def _samples(path: Path, broken: Broken) -> Iterator[tuple[int, Sample]]:
    """Yield (row, sample) of a JSONL file; what is no sample goes to `broken`.

    Raises:
        BadInput: no such file.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as lines:
        for row, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield row, Sample.model_validate_json(line)
            except ValidationError as error:
                broken.add(path, row, first_problem(error))


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.inspect", description="Browse rollouts and samples; hand pairs to people to judge."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="DIR", help="a run's output folder, with its rollouts")
    source.add_argument("--samples", type=Path, metavar="FILE", help="JSONL of samples, or of exported rollouts")
    source.add_argument("--read-review", type=Path, metavar="FILE", help="a filled-in review.csv; needs --pairs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of page, CSV, Markdown and review")
    parser.add_argument("--rows", type=int, default=MOST_ROWS, metavar="N", help="on the page (default: %(default)s)")
    parser.add_argument("--review", type=int, default=0, metavar="N", help="pairs of a sheet for people (default: 0)")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="the canary pairs (JSONL) of --read-review")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    args = parser.parse_args(argv)
    if (args.read_review is None) == (args.out is None) or (args.read_review is None) != (args.pairs is None):
        parser.error("--run and --samples go with --out, --read-review goes with --pairs")
    if args.rows < 1 or args.review < 0:
        parser.error("--rows and --review are positive")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
