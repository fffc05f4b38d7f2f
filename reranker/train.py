"""Train a reranker.

    python -m reranker.train --config reranker/configs/encoder.yaml

See docs/reranker.md: the settings, the data, what each alarm means.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reranker.settings.run import load_settings
from reward.records.commands import command

REFUSED, UNFINISHED = 3, 75
_MANUAL = """\
exit codes
  0   trained and exported: OUTPUT/model
  2   settings, data or model cannot be used: one line says which
  3   trained, but not exported: not better than the base model, or worse on the forgetting set; one line says why
  75  stopped by --stop-after: the same command goes on
"""


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reranker.train",
        description="Train a cross-encoder, compare it with its base, calibrate and export it.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, help="YAML file of the run (reranker/configs)")
    parser.add_argument("--stop-after", type=int, metavar="STEP", help="end at this step; the same command goes on")
    args = parser.parse_args(argv)
    settings = load_settings(args.config)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # Imported once the settings are known to be right: torch takes seconds.
    from transformers.utils.logging import disable_progress_bar

    from reranker.training.run import MODEL, run

    disable_progress_bar()

    result = run(settings, args.stop_after)
    if result is None:
        print(f"{settings.output}: stopped at step {args.stop_after}; the same command goes on from there")
        return UNFINISHED
    _report(result)
    if result["refused"]:
        print(f"refused: {result['refused']}", file=sys.stderr)
        return REFUSED
    print(f"written: {settings.output / MODEL}")
    return 0


def _report(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['steps']} steps, best at {result['best_step']}", title_justify="left")
    table.add_column("")
    for heading in ("queries", "nDCG@10 base", "trained", "change [95 %]"):
        table.add_column(heading, justify="right")
    for name in ("validation", "forgetting"):
        one = result[name]
        change = f"{one['change']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
        table.add_row(name, str(one["queries"]), f"{one['before']:.4f}", f"{one['after']:.4f}", change)
    Console().print(table)
    counts = result["data"]
    left_out = f"{counts['left_out']} left out (left_out.jsonl)"
    print(f"data: {counts['rows']} rows, {counts['train']} training queries, {left_out}")
    if not result["refused"] and result["validation"]["low"] <= 0:
        print("warning: the interval of the change on the validation set holds 0: it may be chance")
    for line in [*result["warnings"], *(f"alarm {one['alarm']}: {one['line']}" for one in result["alarms"])]:
        print(f"warning: {line}")
    print(json.dumps({name: result[name] for name in ("metrics", "calibration", "score_shift")}))


if __name__ == "__main__":
    raise SystemExit(main())
