"""Turn a retrieval set in BEIR layout into the inputs of the flow: queries, a recorded baseline, and warm-up tasks.

`python -m examples.prepare_beir --beir DIR --out DIR [--warm-up-tasks N]`

DIR holds `corpus.jsonl` (`_id`, `text`), `queries.jsonl` (`_id`, `text`, optional `descriptions`) and `qrels.tsv`. The
query is `text`; the first description, when there is one, becomes its history (`用户: …`). The recorded baseline is an
honest heuristic that sees no qrels: the query, filled up with the words of its description that have the highest TF-IDF
weight (measured stronger than keywords alone).
A fifth of the queries, chosen by a hash of their id, is held out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import log
from pathlib import Path
from typing import Any

import jieba

from data_prep.readers.qrels import read_qrels
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl, write_atomically

HELD_OUT_SHARE = 0.2
# Words of asking and telling that are frequent in no single query, so that their weight alone would not drop them.
STOP_WORDS = frozenset(Path(__file__).with_name("stop_words.zh.txt").read_text(encoding="utf-8").split())
# Of warm-up stories: those left whole, the clauses of the others, and how often the query is a customer's.
WHOLE_SHARE, LONGEST_STORY, QUERIES_SHARE = 0.5, 10, 0.7
_CLAUSE = re.compile(r"[^，。？！；：,.?!;:、]+[，。？！；：,.?!;:、]*")
_WORD = re.compile(r"[\u3400-\u9fffA-Za-z]{2,}")


def words(text: str) -> list[str]:
    """Return the content words of a text in their order, repeats included."""
    return [word for word in jieba.lcut(text.lower()) if _WORD.fullmatch(word) and word not in STOP_WORDS]


class KeywordBaseline:
    """Rewrites by TF-IDF: document frequencies are counted over `texts`, one per query. It sees no qrels."""

    def __init__(self, texts: Iterable[str]):
        self._frequency: Counter[str] = Counter()
        self._texts = 0
        for text in texts:
            self._frequency.update(set(words(text)))
            self._texts += 1

    def rewrite(self, query: str, description: str, length: int) -> str:
        """Return the query and, as far as `length` characters allow, the heaviest words that only the description
        holds, in the description's order: retrieval hardly minds it, and a model learns to copy forwards sooner than to
        sort."""
        rewrite = query.rstrip("？?。！! ")[:length] or query[:length]
        counts = Counter(word for word in words(description) if word not in rewrite)
        weight = {word: n * log((self._texts + 1) / (self._frequency[word] + 0.5)) for word, n in counts.items()}
        room, chosen = length - len(rewrite), set()
        for word in sorted(counts, key=lambda word: (-weight[word], word)):
            if 1 + len(word) <= room:
                chosen.add(word)
                room -= 1 + len(word)
        return " ".join([rewrite, *(word for word in counts if word in chosen)])


def is_held_out(query_id: str) -> bool:
    """Decide by a hash of the id: data added later moves no query across the boundary."""
    digest = hashlib.sha256(query_id.encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32 < HELD_OUT_SHARE


def read_beir_queries(folder: Path) -> list[dict[str, Any]]:
    """Read rows for the BVT batch test: query_id, query, history_context, slices.

    Raises:
        BadInput: a file is missing, a row lacks a field, or no query has a relevant passage.
    """
    judged = read_qrels(folder / "qrels.tsv")
    rows = []
    for number, query in read_jsonl(folder / "queries.jsonl"):
        for field in ("_id", "text"):
            if not isinstance(query.get(field), str) or not query[field].strip():
                raise BadInput(f"{folder / 'queries.jsonl'}: row {number}: {field} is missing or empty")
        if query["_id"] not in judged:
            continue
        description = next((text for text in query.get("descriptions") or [] if text.strip()), "")
        rows.append(
            {
                "query_id": query["_id"],
                "query": query["text"].strip(),
                "history_context": f"用户: {' '.join(description.split())}" if description else "",
                "slices": ["with_description"] if description else ["query_only"],
            }
        )
    if not rows:
        raise BadInput(f"{folder}: no query has a relevant passage in qrels.tsv")
    return rows


def warm_up_tasks(
    rows: Sequence[dict[str, Any]],
    passages: Sequence[str],
    baseline: KeywordBaseline,
    length: int,
    number: int,
    rng: random.Random,
) -> Iterator[dict[str, Any]]:
    """Yield warm-up tasks for SFT before distillation: patched-together stories with the baseline's rewrite of them.

    Half of the stories are unchanged descriptions of other training queries. The others are one to ten clauses of a
    description or a passage, in any order, about half of them replaced by clauses from anywhere: from a few thousand
    texts no two are alike, so that a model cannot learn them by heart, and short ones teach what long ones need. The
    query is a training one, sometimes a clause. No qrel and no held-out text takes part.
    """
    queries = [row["query"] for row in rows]
    descriptions = [text for text in map(_description, rows) if text] or passages
    texts = [clauses for clauses in map(_clauses, [*descriptions, *passages]) if clauses]
    anywhere = [clause for clauses in texts for clause in clauses]
    for index in range(number):
        if rng.random() < WHOLE_SHARE:
            story = " ".join(rng.choice(descriptions).split())
        else:
            longest = rng.randint(1, LONGEST_STORY)
            own = rng.choice(texts)
            own = rng.sample(own, min(len(own), rng.randint(max(1, longest // 3), longest)))
            story = "".join(rng.choice((clause, rng.choice(anywhere))) for clause in own).strip()
        query = (rng.choice(queries) if rng.random() < QUERIES_SHARE else rng.choice(anywhere)[:length]).strip()
        yield {
            "query_id": f"warm_up_{index}",
            "original_query": query,
            "history_context": f"用户: {story}",
            "rewritten_query": baseline.rewrite(query, story, length),
            "recall_results": [],
            "recall_count": 0,
            "top1_score": 1.0,
            "avg_top3_score": 1.0,
            "success": True,
        }


def _clauses(text: str) -> list[str]:
    """Return the text's clauses, each with the mark that ends it; none is blank."""
    return [clause for clause in _CLAUSE.findall(" ".join(text.split())) if clause.strip(" ，。？！；：,.?!;:、")]


def _description(row: dict[str, Any]) -> str:
    return str(row["history_context"]).removeprefix("用户: ")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomically(path, (json.dumps(row, ensure_ascii=False) for row in rows))


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.prepare_beir", description=__doc__)
    parser.add_argument("--beir", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rewrite-length", type=int, default=30, help="longest rewrite in characters (default 30)")
    parser.add_argument("--warm-up-tasks", type=int, default=0, help="rewrites of patched stories (default none)")
    parser.add_argument("--limit", type=int, help="use only the first N queries")
    parser.add_argument("--seed", type=int, default=0, help="of the warm-up tasks")
    args = parser.parse_args(argv)
    jieba.setLogLevel(logging.WARNING)
    # The split is by query, before anything is counted: the baseline sees training queries only.
    rows = read_beir_queries(args.beir)[: args.limit]
    held_out = [row for row in rows if is_held_out(row["query_id"])]
    train = [row for row in rows if not is_held_out(row["query_id"])]
    baseline = KeywordBaseline(f"{row['query']} {_description(row)}" for row in train)
    recorded = [
        {**row, "rewritten_query": baseline.rewrite(row["query"], _description(row), args.rewrite_length)}
        for row in rows
    ]
    corpus = read_jsonl(args.beir / "corpus.jsonl")
    passages = [row["text"] for _, row in corpus if isinstance(row.get("text"), str)]
    rng = random.Random(args.seed)
    warm_up = list(warm_up_tasks(train, passages, baseline, args.rewrite_length, args.warm_up_tasks, rng))
    write_rows(args.out / "queries_train.jsonl", train)
    write_rows(args.out / "queries_heldout.jsonl", held_out)
    write_rows(args.out / "baseline_rewrites.jsonl", recorded)
    write_rows(args.out / "warm_up_tasks.jsonl", warm_up)
    print(f"queries: {len(train)} for training, {len(held_out)} held out; {len(warm_up)} warm-up tasks")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
