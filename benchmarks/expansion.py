"""Does the rule reward of expansions tell good from bad, and do expansions find more?

    python -m benchmarks.expansion --data FILE [--set BEIR_DIR …] [--encoder FOLDER] [--expansions NAME=FILE …]

Rules: both presets score every recorded expansion of --data, hand-made adversarial outputs in English and Chinese
(`expansion_runs/adversarial.yaml`), faithful Chinese ones, and neighbours made of the recorded ones. `auc_*` is the
probability that a good expansion has more than an adversarial one. A recorded expansion is good where it has lex and
vec lines and less than a third of its lines are templates: lines that five queries share, their own words aside.

Retrieval: each --set is indexed and served as users run it; --encoder is the dense channel's model. The plain query and
the expansions of each NAME=FILE (`{"query": …, "expansion": text}` a line, or what `evaluation.expansions` wrote) are
asked. Gains over the plain query have paired 95 % bootstrap intervals.

The output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.expansion_runs.retrieval import measure_retrieval
from benchmarks.expansion_runs.rules import measure_rules
from data_prep.expansions.queries import read_expansions
from reward.records.commands import command
from reward.records.files import BadInput


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.expansion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="recorded expansions")
    parser.add_argument("--set", type=Path, action="append", default=[], metavar="DIR", help="a BEIR folder")
    parser.add_argument("--encoder", metavar="FOLDER", help="of the dense channel (default: the service's own)")
    parser.add_argument("--expansions", action="append", default=[], metavar="NAME=FILE", help="of a system")
    parser.add_argument("--limit", type=int, default=500, help="queries of a set (default %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where indexes are kept (default: nowhere)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    systems = {}
    for given in args.expansions:
        name, found, file = given.partition("=")
        if not found:
            raise BadInput(f"--expansions {given}: expected NAME=FILE")
        systems[name] = {one.asked.query: one.expansion for one in read_expansions(Path(file))}
    result = measure_rules(args.data, args.seed)
    with tempfile.TemporaryDirectory(prefix="expansion_benchmark_") as folder:
        work = args.work or Path(folder)
        result["retrieval"] = [
            row
            for one in args.set
            for row in measure_retrieval(one, args.encoder, systems, args.limit, args.seed, work)
        ]
    print(json.dumps(result, ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
