"""Without known passages, does the reward still mean retrieval? Its term beside the term of known passages.

    python -m benchmarks.reward_judge [--beir DIR] [--reranker FOLDER_OR_URL ...] [--seed 0]

Honest rewrites, attacks, the plain query and the baseline of every prompt (as in `benchmarks.reward_integrity`) are
scored twice over a live retrieval service: with the relevant passages known, and with none known, by the service's
reranker. Spearman's correlation of the two retrieval terms is over all texts, and over honest rewrites alone; the third
is the mean within a prompt, which is what a group's advantages rest on. Once without a reranker (words in common), then
with each `--reranker`. The last line is JSON.

`--beir` takes a real set whose queries have rewrites by people; where its queries have a `split`, those of dev, which
`benchmarks.reranker` does not train on. The baseline of such a set is the query itself. The better of baseline and
plain query is then the baseline: formulas v2 and v3 have one retrieval term.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.integrity_runs.metrics import rank_correlation
from benchmarks.integrity_runs.scoring import Attacked, Scores, attack_all, score_all, settings_of
from benchmarks.integrity_runs.services import retrieval_service
from benchmarks.integrity_runs.suite import TenantSuite, load_real_set, load_suites
from reward.records.files import BadInput

LEXICAL = "words in common"
FORMULAS = ("v2", "v3")
SAMPLE_PROMPTS, REAL_PROMPTS = 40, 100

Found = dict[str, float | int | None]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reward_judge", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--beir", type=Path, metavar="DIR", help="a real set in BEIR layout with rewrites by people")
    parser.add_argument("--reranker", action="append", default=[], help="cross-encoder, as rag.serve takes it")
    parser.add_argument("--seed", type=int, default=0, help="of attacks (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        suites = (
            [load_real_set(args.beir, args.seed, REAL_PROMPTS, unseen=True)]
            if args.beir
            else load_suites(args.seed, SAMPLE_PROMPTS)
        )
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {judge or LEXICAL: agreement(suites, args.seed, judge) for judge in (None, *args.reranker)}
    _report(found)
    print(json.dumps(found))
    return 0


def agreement(suites: Sequence[TenantSuite], seed: int, reranker: str | None) -> dict[str, Found]:
    """Return formula → correlations of the two terms, for hits judged by `reranker` (None: by their words)."""
    attacked = attack_all(suites, seed)
    with TemporaryDirectory() as name, retrieval_service(suites, reranker) as url:
        make = partial(settings_of, url=url, folder=Path(name), lexical=reranker is None)
        return {
            formula: _correlations(
                attacked,
                *(
                    score_all(attacked, partial(make, formula=formula), formula=formula, knows_passages=knows)
                    for knows in (True, False)
                ),
            )
            for formula in FORMULAS
        }


def _correlations(attacked: Sequence[Attacked], known: Scores, unknown: Scores) -> Found:
    everything: list[tuple[float, float]] = []
    honest: list[tuple[float, float]] = []
    by_prompt: dict[str, list[tuple[float, float]]] = defaultdict(list)
    abstained = 0
    for one in attacked:
        for text in one.texts:
            terms = (known.retrieval_term(one, text), unknown.retrieval_term(one, text))
            if terms[0] is None or terms[1] is None:
                abstained += unknown.has_abstained(one, text) or known.has_abstained(one, text)
                continue
            pair = (terms[0], terms[1])
            everything.append(pair)
            by_prompt[one.prompt.sample.sample_id].append(pair)
            if text in one.prompt.honest:
                honest.append(pair)
    within = [value for pairs in by_prompt.values() if (value := rank_correlation(pairs)) is not None]
    return {
        "spearman": rank_correlation(everything),
        "spearman_honest": rank_correlation(honest),
        "spearman_within_prompt": round(sum(within) / len(within), 4) if within else None,
        "texts": len(everything),
        "abstained": abstained,
    }


def _report(found: dict[str, dict[str, Found]]) -> None:
    table = Table(title="Spearman of the retrieval terms without and with known passages")
    for title in ("hits judged by", "formula", "all texts", "honest", "within a prompt", "texts", "abstained"):
        table.add_column(title, justify="left" if title in ("hits judged by", "formula") else "right")
    for judge, by_formula in found.items():
        for formula, values in by_formula.items():
            shown = [
                "" if value is None else f"{value:+.3f}" if isinstance(value, float) else str(value)
                for value in values.values()
            ]
            table.add_row(judge, formula, *shown)
    Console(width=130).print(table)


if __name__ == "__main__":
    raise SystemExit(main())
