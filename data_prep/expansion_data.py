"""Check, measure and prepare the data of query expansion: files of a query and its typed lines, one JSON object a line.

    python -m data_prep.expansion_data validate data/*.jsonl
    python -m data_prep.expansion_data analyse data/*.jsonl --out analysis.json
    python -m data_prep.expansion_data score data/*.jsonl --out scored.jsonl --preset rules-v1
    python -m data_prep.expansion_data clean data/*.jsonl --out clean.jsonl
    python -m data_prep.expansion_data balance clean.jsonl --out balanced.jsonl
    python -m data_prep.expansion_data augment balanced.jsonl --out enlarged.jsonl
    python -m data_prep.expansion_data split enlarged.jsonl --out data/expansion

A row is `{"query": …, "output": [[kind, text], …]}`; `id`, `category` and other fields stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa

from data_prep.build_rl import SCHEMA
from data_prep.dataset.artefacts import MESSAGES, writing_parquet
from data_prep.expansions.analysis import analyse
from data_prep.expansions.balancing import balance
from data_prep.expansions.cleaning import clean
from data_prep.expansions.examples import BadRow, Example, irregular, read_examples, read_rows, write_examples
from data_prep.expansions.scoring import common_deductions, score_all, summary
from data_prep.expansions.short_queries import short_copies
from data_prep.expansions.splitting import NEAR_DUPLICATE, split
from data_prep.questions.split import bare
from reward.expansion.prompt import build_messages, build_sft_messages
from reward.expansion.rules import Preset
from reward.records.commands import command
from reward.records.files import BadInput, write_atomically, write_json
from reward.records.sample import Metadata, Sample
from reward.settings.recipe import Language

_SHOWN = 20  # bad rows
_SFT = pa.schema([("messages", MESSAGES)])

_MANUAL = """\
what each does
  validate   names every row that is no example (20 of them in full), and counts the examples that leave the form (one
             to three lex, one to three vec, no more than one hyde)
  analyse    counts queries, repeats, languages, categories, lines and templated lines
  score      scores every example by the rules of training (--preset); shows the ratings and which rules took how often
  clean      drops lines that take a technical term for something else, mends miswritten terms, masks personal data,
             drops repeats. Rows that are no examples, and examples that lose every lex or vec line or score below
             --least-score, go to <out>.quarantine.jsonl with the reason
  augment    adds copies under a query of two words, up to --share of all examples
  balance    keeps at most --most examples of a category (default: as many as the median category has)
  split      writes DIR/{train,val,test}.jsonl, sft_{train,val}.parquet (column messages) and rl_{train,val}.parquet for
             the trainer. A query's split depends on its words alone. Near-duplicates of a held-out query are left out.
             A row may be a query without lines, for RL alone; `relevant_doc_ids` names its known passages

  Every tool but validate and clean refuses a file of which a row is no example. The same files and seed give the same
  bytes.

exit codes
  0 done; 1 validate found a row that is no example; 2 bad input, in one line
"""


def validate(files: Sequence[Path]) -> int:
    """Print what is wrong; return 1 where a row is no example."""
    counts: Counter[str] = Counter()
    bad = 0
    for row in read_rows(files):
        if isinstance(row, BadRow):
            bad += 1
            if bad <= _SHOWN:
                print(row)
        else:
            counts["examples"] += 1
            counts.update(irregular(row))
    if bad > _SHOWN:
        print(f"… and {bad - _SHOWN} rows more")
    examples = counts.pop("examples", 0)
    print(f"rows {examples + bad} = examples {examples} + no examples {bad}")
    for where, count in counts.most_common():
        print(f"  {where}: {count}")
    return 1 if bad else 0


def analyse_files(files: Sequence[Path], out: Path | None) -> None:
    found = analyse(read_examples(files))
    print(json.dumps(found, ensure_ascii=False, indent=2))
    if out:
        write_json(out, found)


def score_files(files: Sequence[Path], out: Path | None, preset: Preset, language: Language | None) -> None:
    """Score and print the summary; with `out` write a line an example."""
    examples = read_examples(files)
    started = time.perf_counter()
    scored = score_all(((one.id, one.query, one.category or "", one.expansion) for one in examples), preset, language)
    seconds = time.perf_counter() - started
    print(f"{preset}: {json.dumps(summary(scored))}")
    for rule, count in common_deductions(scored).items():
        print(f"  {rule}: took from {count} examples")
    print(f"{len(scored) / seconds:,.0f} examples a second")
    if out:
        write_atomically(out, (json.dumps(one.to_record(), ensure_ascii=False) for one in scored))


def clean_files(files: Sequence[Path], out: Path, least_score: float) -> None:
    """Write the examples that stay, and beside them what does not."""
    if not 0 <= least_score <= 1:
        raise BadInput(f"--least-score {least_score:g}: outside [0, 1]")
    bad: list[BadRow] = []
    examples: list[Example] = []
    for row in read_rows(files):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            examples.append(row)
    cleaned = clean(examples, least_score)
    if not cleaned.examples:
        raise BadInput(f"{', '.join(map(str, files))}: no example stays" + (f"; {bad[0]}" if bad else ""))
    write_examples(out, cleaned.examples)
    quarantine = out.with_name(out.name + ".quarantine.jsonl")
    lines = [{"file": str(row.file), "row": row.row, "reason": row.problem} for row in bad]
    lines += [{"id": one.id, "query": one.query, "reason": reason} for one, reason in cleaned.left_out]
    write_atomically(quarantine, (json.dumps(line, ensure_ascii=False) for line in lines))
    print(f"rows {len(bad) + len(examples)} = kept {len(cleaned.examples)} + left out {len(lines)} ({quarantine})")
    for what, count in cleaned.counts.most_common(20):
        print(f"  {what}: {count}")


def augment_files(files: Sequence[Path], out: Path, share: float, seed: int) -> None:
    """Write the examples and, after them, their copies under short queries."""
    if not 0 <= share <= 1:
        raise BadInput(f"--share {share:g}: outside [0, 1]")
    examples = read_examples(files)
    copies = list(short_copies(examples, share, seed))
    write_examples(out, [*examples, *copies])
    print(f"{len(examples)} examples, {len(copies)} copies under short queries ({round(share * len(examples))} wanted)")


def balance_files(files: Sequence[Path], out: Path, most: int | None, seed: int) -> None:
    if most is not None and most < 1:
        raise BadInput(f"--most {most}: must be 1 or more")
    examples = read_examples(files)
    kept = balance(examples, most, seed)
    write_examples(out, kept)
    before, after = (Counter(one.category or "without a category" for one in some) for some in (examples, kept))
    print(f"{len(examples)} examples, {len(kept)} kept")
    for category, count in before.most_common():
        print(f"  {category}: {count} -> {after[category]}")


def split_files(files: Sequence[Path], out: Path, seed: int, tenant: str) -> None:
    """Write the splits, and of train and val what the trainer reads."""
    splits, left_out = split(read_examples(files, prompts=True), seed)
    if not splits["train"] or not splits["val"]:
        raise BadInput(f"{', '.join(map(str, files))}: too few queries: train and val need one each")
    for name, examples in splits.items():
        write_examples(out / f"{name}.jsonl", examples)
        if name == "test":
            continue
        with writing_parquet(out / f"sft_{name}.parquet", _SFT) as write_row:
            for example in filter(lambda one: one.output, examples):
                write_row({"messages": build_sft_messages(example.query, example.expansion.to_text())})
        with writing_parquet(out / f"rl_{name}.parquet", SCHEMA) as write_row:
            for index, example in enumerate(_one_a_query(examples)):
                write_row(_rl_row(example, index, name, tenant))
    shown = ", ".join(f"{name} {len(examples)}" for name, examples in splits.items())
    print(f"{out}: {shown}; left out as near-duplicates (from {NEAR_DUPLICATE:g}) of held-out queries: {len(left_out)}")


def _one_a_query(examples: Iterable[Example]) -> list[Example]:
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(bare(example.query), example)
    return list(first.values())


def _rl_row(example: Example, index: int, split_name: Any, tenant: str) -> dict[str, Any]:
    """Make one row of verl's RL parquet; `Sample.from_extra_info` turns its `extra_info` into the sample again."""
    slices = (example.category,) if example.category else ()
    sample = Sample(
        sample_id=example.id or f"expansion_{index:05d}",
        original_query=example.query,
        metadata=Metadata(tenant_id=tenant, split=split_name, slices=slices),
        relevant_doc_ids=example.relevant_doc_ids,
    )
    return {
        "data_source": f"{tenant}_expansion",
        "prompt": build_messages(example.query),
        "ability": "expansion",
        "reward_model": {"style": "rule", "ground_truth": ""},
        "extra_info": sample.to_extra_info(index),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.expansion_data",
        description=__doc__,
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tools = parser.add_subparsers(dest="tool", required=True)

    def add(name: str, run: Callable[..., int | None], what: str, *, out: str = "") -> argparse.ArgumentParser:
        tool = tools.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        tool.add_argument("files", type=Path, nargs="+", metavar="FILE", help="examples (.jsonl)")
        tool.set_defaults(run=run)
        if out:
            tool.add_argument("--out", type=Path, required=name not in ("analyse", "score"), help=out)
        return tool

    add("validate", validate, "name every row that is no example")
    add("analyse", analyse_files, "count queries, languages, categories, lines and templates", out="counts (.json)")
    score = add("score", score_files, "score every example by rules", out="an example a line (.jsonl)")
    score.add_argument("--preset", choices=get_args(Preset), default="rules-v2")
    score.add_argument("--language", choices=get_args(Language), help="whose rules count (default: each query's own)")
    mend = add("clean", clean_files, "drop misread lines and repeats, mend miswritten terms", out="examples (.jsonl)")
    least = "examples that score less by rules (rules-v2) are left out (default 0: none)"
    mend.add_argument("--least-score", type=float, default=0.0, metavar="S", help=least)
    enlarge = add("augment", augment_files, "add copies under short queries", out="examples (.jsonl)")
    enlarge.add_argument("--share", type=float, default=0.1, help="of all examples, at most (default 0.1)")
    even = add("balance", balance_files, "keep no more of a category than of others", out="examples (.jsonl)")
    even.add_argument("--most", type=int, metavar="N", help="examples of a category (default: the median category's)")
    parts = add("split", split_files, "write train, val and test", out="folder")
    parts.add_argument("--tenant", default="expansion", help="tenant whose service the RL prompts are scored with")
    for tool in (enlarge, even, parts):
        tool.add_argument("--seed", type=int, default=0)
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(argv))
    run = options.pop("run")
    del options["tool"]
    return run(**options) or 0


if __name__ == "__main__":
    raise SystemExit(main())
