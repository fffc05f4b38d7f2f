"""Write the reward's definition out of its configuration and word lists, or check that a copy has not drifted.

    python -m reward.medical_rules --out data/rl/reward_rules.md
    python -m reward.medical_rules --settings recipe.yaml --check data/rl/reward_rules.md

Exit code 0: written, or the copy is what the configuration gives; 1: the copy differs (the first lines that do are
printed); 2: bad input.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from reward.medical.rules_page import rules_page
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically
from reward.settings.medical_run import load_medical_settings

_SHOWN = 20  # lines of a difference


@command
def main(argv: list[str] | None = None) -> int:
    args = _parse_args(argv)
    page = rules_page(load_medical_settings(args.run, args.settings))
    if args.check is not None:
        return _check(args.check, page)
    if args.out is None:
        print(page, end="")
    else:
        write_atomically(args.out, page.splitlines())
    return 0


def _check(path: Path, page: str) -> int:
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    copy = path.read_text(encoding="utf-8")
    if copy == page:
        return 0
    changes = difflib.unified_diff(copy.splitlines(), page.splitlines(), str(path), "configuration", lineterm="", n=0)
    print(f"{path}: differs from the configuration", file=sys.stderr)
    for _, line in zip(range(_SHOWN), changes, strict=False):
        print(line, file=sys.stderr)
    return 1


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reward.medical_rules", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, help="output folder of a run, whose recorded settings count")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the node medical, or a recipe")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page; without it, it is printed")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare a copy instead of writing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
