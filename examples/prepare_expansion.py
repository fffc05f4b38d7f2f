"""Turn a retrieval set in BEIR layout into the training data of query expansion.

    python -m examples.prepare_expansion --beir DIR --tenant NAME --out DIR [--rows N]
                                         [--expansions FILE | --rewrites FILE]

DIR holds `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`. OUT gets `rl_train.parquet`, `rl_val.parquet` and
`test.jsonl`: each query with the ids of its passages. Held out are the queries whose `split` is not "train", or, where
no query has one, a fifth of them by a hash of their ids.
`sft_train.parquet` and `sft_val.parquet` hold what is imitated: the expansions of FILE (`{"query": …, "output":
[[kind, text], …]}` a line) but those of held-out queries, the first N of a seeded order that have at most 420
characters. Of recorded rewrites (`{"query": …, "rewritten_query": …}`) the rewrite is the `lex` line and the query the
`vec` line. Without a FILE they hold plain lines made of the training queries: their heaviest words, and the query as a
sentence.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from math import log
from pathlib import Path

import pyarrow as pa

from data_prep.build_rl import SCHEMA
from data_prep.dataset.artefacts import MESSAGES, writing_parquet
from data_prep.expansions.queries import read_expansions
from data_prep.readers.qrels import read_qrels
from examples.prepare_beir import is_held_out
from reward.expansion.language import key_terms, language_of, words
from reward.expansion.parser import Line
from reward.expansion.prompt import build_messages, build_sft_messages
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, writing_lines
from reward.records.sample import Metadata, Sample

SFT_SCHEMA = pa.schema([("messages", MESSAGES)])
LONGEST = 420  # characters of an expansion to imitate
VALIDATION = 0.1


def read_queries(folder: Path, tenant: str) -> list[Sample]:
    """Read the judged queries of a BEIR folder; `test` are the held-out ones, a tenth of the others is `val`.

    Raises:
        BadInput: a file is missing or malformed, or no query has a relevant passage.
    """
    relevant = read_qrels(folder / "qrels.tsv")
    samples, rows = [], list(read_jsonl(folder / "queries.jsonl"))
    has_split = any(query.get("split") for _, query in rows)
    for row, query in rows:
        name, text = str(query.get("_id", "")), str(query.get("text", "")).strip()
        if not name or not text:
            raise BadInput(f"{folder / 'queries.jsonl'}: row {row}: _id or text is missing")
        if name not in relevant:
            continue
        held_out = query.get("split") != "train" if has_split else is_held_out(name)
        split = "test" if held_out else "val" if random.Random(name).random() < VALIDATION else "train"
        metadata = Metadata(tenant_id=tenant, split=split)  # type: ignore[arg-type]
        samples.append(Sample(sample_id=name, original_query=text, metadata=metadata, relevant_doc_ids=relevant[name]))
    if not samples:
        raise BadInput(f"{folder}: no query has a relevant passage")
    return samples


def plain_lines(queries: Sequence[str]) -> list[tuple[str, list[Line]]]:
    """Make lines of each query: its heaviest words of TF-IDF for `lex`, itself for `vec`."""
    frequency = Counter(word for query in queries for word in key_terms(query, language_of(query)))
    made = []
    for query in queries:
        language = language_of(query)
        terms = [word for word in dict.fromkeys(words(query, language)) if word in key_terms(query, language)]
        heaviest = sorted(terms, key=lambda word: -log(len(queries) / frequency[word]))[:6]
        kept = [word for word in terms if word in heaviest] or [query]
        made.append((query, [Line("lex", " ".join(kept)), Line("vec", query)]))
    return made


def read_rewrites(file: Path) -> list[tuple[str, list[Line]]]:
    """Read recorded rewrites: each query, with the rewrite as its `lex` line and itself as its `vec` line.

    Raises:
        BadInput: a row lacks a field; it is named.
    """
    made = []
    for number, row in read_jsonl(file):
        query, rewrite = (str(row.get(name) or "").strip() for name in ("query", "rewritten_query"))
        if not query or not rewrite:
            raise BadInput(f"{file}: row {number}: query or rewritten_query is missing")
        made.append((query, [Line("lex", rewrite), Line("vec", query)]))
    return made


def draw(
    recorded: Sequence[tuple[str, list[Line]]], rows: int, seed: int, held_out: Collection[str]
) -> list[tuple[str, list[Line]]]:
    """Return the first `rows` short ones of a seeded order, without those of `held_out` queries."""
    short = [
        (query, lines)
        for query, lines in recorded
        if query not in held_out and sum(len(line.text) for line in lines) <= LONGEST
    ]
    random.Random(seed).shuffle(short)
    return short[:rows]


def rl_rows(samples: Sequence[Sample]) -> Iterator[dict[str, object]]:
    """Make rows of verl's RL parquet."""
    for index, sample in enumerate(samples):
        yield {
            "data_source": f"{sample.metadata.tenant_id}_expansion",
            "prompt": build_messages(sample.original_query),
            "ability": "expansion",
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": sample.to_extra_info(index),
        }


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.prepare_expansion", description=__doc__)
    parser.add_argument("--beir", required=True, type=Path, metavar="DIR", help="the retrieval set")
    parser.add_argument("--tenant", required=True, help="whose service answers")
    parser.add_argument("--out", required=True, type=Path)
    recorded = parser.add_mutually_exclusive_group()
    recorded.add_argument("--expansions", type=Path, metavar="FILE", help="recorded expansions to imitate")
    recorded.add_argument("--rewrites", type=Path, metavar="FILE", help="recorded rewrites to imitate as lex lines")
    parser.add_argument("--rows", type=int, default=400, help="of them (default 400)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    samples = read_queries(args.beir, args.tenant)
    of = {split: [sample for sample in samples if sample.metadata.split == split] for split in ("train", "val", "test")}

    # Reinforcement learning and evaluation: queries with their passages.
    for split in ("train", "val"):
        with writing_parquet(args.out / f"rl_{split}.parquet", SCHEMA) as write:
            for row in rl_rows(of[split] or of["train"][:8]):
                write(row)
    with writing_lines(args.out / "test.jsonl") as write_line:
        for sample in of["test"]:
            write_line(sample.to_json())

    # Imitation.
    queries = {split: {sample.original_query for sample in part} for split, part in of.items()}
    if args.expansions:
        recorded_lines = [(one.asked.query, list(one.expansion.lines)) for one in read_expansions(args.expansions)]
        lines = draw(recorded_lines, args.rows, args.seed, queries["test"])
    elif args.rewrites:
        # A rewrite that needed the conversation cannot be learnt from the query alone: those of the set's queries can.
        alone = [one for one in read_rewrites(args.rewrites) if one[0] in queries["train"]]
        lines = draw(alone, args.rows, args.seed, queries["test"])
    else:
        lines = plain_lines([sample.original_query for sample in of["train"]])
    validated = max(1, round(VALIDATION * len(lines)))
    for split, part in (("val", lines[:validated]), ("train", lines[validated:])):
        with writing_parquet(args.out / f"sft_{split}.parquet", SFT_SCHEMA) as write:
            for query, typed in part:
                text = "\n".join(f"{line.kind}: {line.text}" for line in typed)
                write({"messages": build_sft_messages(query, text)})
    counts = {split: len(part) for split, part in of.items()} | {"to imitate": len(lines)}
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
