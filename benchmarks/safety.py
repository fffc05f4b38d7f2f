"""Does the medical reward rank every unsafe answer below every safe one, and do its rules see what people see?

    python -m benchmarks.safety [--data DIR] [--misses FILE]

Scores hand-made answers (`benchmarks/safety_runs/*.yaml`: missed emergencies with fluent reasoning, alarms at
everything, hidden and respelled doses, refusals, words to the scorer, copies, advice in the chain alone …) with the
rules alone, and again with a teacher who praises every unsafe answer.

- *unsafe above safe*: unsafe answers that do not rank below every safe one, of any question. Aim under teacher-v2: 0.
- Single sentences (`sentences.yaml`): recall and false alarms of the readers of urgency and risk.
- *stuffing gain*: the most that keyword lists add to an answer's reward under teacher-v2. Aim: at most 0.
- `--data`: a folder with the sets zh_med_emergency_silver, zh_crisis_smile_silver, en_medsafetybench,
  zh_cvalues_prompts (those that are there): recall and false alarms against their silver labels.
- `--misses`: writes the texts on which rules and labels differ, one a line, at most fifty a set.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.safety_runs.answers import Rewarded, above_safe, load_answers, reward
from benchmarks.safety_runs.sentences import measure_sentences
from benchmarks.safety_runs.silver import Miss, measure
from benchmarks.safety_runs.stuffing import stuffing_gain
from reward.medical.lexicons import lexicons
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically

SHOWN = 50  # misses of a set
console = Console(markup=False, highlight=False)


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    measured: dict[str, float | int] = {}
    if args.data is not None:
        measured = _measure_sets(args.data, args.misses)
    made = load_answers()
    rewarded, deceived = reward(made), reward(made, deceived=True)
    console.print(_kinds_table(rewarded))
    gain, _ = stuffing_gain(made)
    found: dict[str, object] = {
        "n_adversarial": sum(not one.is_safe for one in made),
        "n_safe": sum(one.is_safe for one in made),
        "kinds": len({one.kind for one in made if not one.is_safe}),
        "v1_unsafe_above_safe": len(above_safe(rewarded, "v1")),
        "v2_unsafe_above_safe": len(above_safe(rewarded, "v2")),
        "v1_unsafe_above_safe_deceived": len(above_safe(deceived, "v1")),
        "v2_unsafe_above_safe_deceived": len(above_safe(deceived, "v2")),
        "v2_lowest_safe": min(one.v2 for one in rewarded if one.made.is_safe and one.v2 is not None),
        "v2_highest_unsafe": max(one.v2 for one in rewarded if not one.made.is_safe and one.v2 is not None),
        "stuffing_gain": gain,
        **measure_sentences(),
    }
    found |= measured
    found["lexicons"] = lexicons().versions["emergency_signs"]
    print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}))
    return 0


def _measure_sets(folder: Path, misses_file: Path | None) -> dict[str, float | int]:
    if not folder.is_dir():
        raise BadInput(f"--data {folder}: no such folder")
    metrics, misses = measure(folder)
    if not metrics:
        raise BadInput(f"--data {folder}: holds none of the sets")
    if misses_file is not None:
        write_atomically(misses_file, _first(misses))
    return metrics


def _kinds_table(rewarded: list[Rewarded]) -> Table:
    """A row a kind: how many, the range of their rewards under both presets."""
    table = Table(title="rewards of hand-made answers, rules alone")
    for title in ("kind", "answers", "v1 lowest", "v1 highest", "v2 lowest", "v2 highest"):
        table.add_column(title, justify="left" if title == "kind" else "right")
    kinds = Counter(one.made.kind for one in rewarded)
    for kind in ["safe", *sorted(kinds - Counter({"safe": kinds["safe"]}))]:
        some = [one for one in rewarded if one.made.kind == kind]
        v1, v2 = [one.v1 for one in some], [one.v2 for one in some if one.v2 is not None]
        table.add_row(kind, str(len(some)), *(f"{value:+.2f}" for value in (min(v1), max(v1), min(v2), max(v2))))
    return table


def _first(misses: list[Miss]) -> list[str]:
    """The first misses of each set, as JSON lines."""
    shown: Counter[str] = Counter()
    lines = []
    for miss in misses:
        shown[miss.set] += 1
        if shown[miss.set] <= SHOWN:
            lines.append(json.dumps(asdict(miss), ensure_ascii=False))
    return lines


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.safety", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the sets with silver labels")
    parser.add_argument("--misses", type=Path, metavar="FILE", help="write where rules and labels differ, JSON lines")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
