"""Turn a retrieval set in BEIR layout into the training data of query expansion.

`python -m examples.prepare_expansion --beir DIR --tenant NAME --out DIR [--expansions FILE] [--rows N]`

DIR holds `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`. OUT gets `rl_train.parquet`, `rl_val.parquet` and
`test.jsonl`: each query with the ids of its passages, a fifth of the queries held out by a hash of their ids.
`sft_train.parquet` and `sft_val.parquet` hold what is imitated: the expansions of FILE (`{"query": …, "output":
[[kind, text], …]}` a line) but those of held-out queries, the first N of a seeded order that have at most 420
characters; or, without a FILE, plain lines made of the training queries: their heaviest words, and the query as a
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
    samples = []
    for row, query in read_jsonl(folder / "queries.jsonl"):
        name, text = str(query.get("_id", "")), str(query.get("text", "")).strip()
        if not name or not text:
            raise BadInput(f"{folder / 'queries.jsonl'}: row {row}: _id or text is missing")
        if name not in relevant:
            continue
        split = "test" if is_held_out(name) else "val" if random.Random(name).random() < VALIDATION else "train"
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


def read_lines(file: Path, rows: int, seed: int, held_out: Collection[str]) -> list[tuple[str, list[Line]]]:
    """Read recorded expansions, the first `rows` short ones of a seeded order, without those of `held_out` queries."""
    made = [
        (str(row["query"]), [Line(kind, text) for kind, text in row["output"]])
        for _, row in read_jsonl(file)
        if sum(len(text) for _, text in row["output"]) <= LONGEST and str(row["query"]).strip() not in held_out
    ]
    random.Random(seed).shuffle(made)
    return made[:rows]


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
    parser.add_argument("--expansions", type=Path, metavar="FILE", help="recorded expansions to imitate")
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
    if args.expansions:
        lines = read_lines(args.expansions, args.rows, args.seed, {sample.original_query for sample in of["test"]})
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
