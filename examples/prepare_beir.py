"""Turn a retrieval set in BEIR layout into the inputs of the flow: queries, a recorded baseline, and copying practice.

`python -m examples.prepare_beir --beir DIR --out DIR [--word-tasks N] [--copy-tasks N] [--pair-tasks N]`

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
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import log
from pathlib import Path
from typing import Any

import jieba

from reward.records import BadInput, read_jsonl, write_atomically

HELD_OUT_SHARE = 0.2
# Words of asking and telling that are frequent in no single query, so that their weight alone would not drop them.
STOP_WORDS = frozenset(Path(__file__).with_name("stop_words.zh.txt").read_text(encoding="utf-8").split())
_WORD = re.compile(r"[\u3400-\u9fffA-Za-z]{2,}")


def words(text: str) -> list[str]:
    """Content words of a text in their order, repeats included."""
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
        """The query and, as far as `length` characters allow, the heaviest words that only the description holds, in
        the description's order: retrieval hardly minds it, and a model learns to copy forwards sooner than to sort.
        """
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
    """By a hash of the id: data added later moves no query across the boundary."""
    digest = hashlib.sha256(query_id.encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32 < HELD_OUT_SHARE


def read_beir_queries(folder: Path) -> list[dict[str, Any]]:
    """Rows for the BVT batch test: query_id, query, history_context, slices.

    Raises:
        BadInput: a file is missing, a row lacks a field, or no query has a relevant passage.
    """
    qrels = folder / "qrels.tsv"
    if not qrels.is_file():
        raise BadInput(f"{qrels}: no such file")
    judged = {line.split("\t")[0] for line in qrels.read_text(encoding="utf-8").splitlines()[1:] if line.strip()}
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


def word_tasks(passages: Sequence[str], number: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Practice in copying alone: random words of the passages, to be repeated without the question mark.

    Nothing but copying helps with random words, so a random model learns it in minutes; from sentences, where guessing
    frequent words helps at first, it takes several times as long.
    """
    vocabulary = sorted({word for passage in passages for word in jieba.cut(passage) if _WORD.fullmatch(word)})
    for index in range(number):
        text = "".join(rng.choices(vocabulary, k=rng.randint(3, 10)))
        yield _exported(f"words_{index}", f"{text}？", "", text)


def copy_tasks(
    passages: Sequence[str], baseline: KeywordBaseline, length: int, number: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Practice in the task itself: passages as if a customer had written them, with the baseline's rewrite of them.

    No query, qrel or held-out text takes part.
    """
    for index in range(number):
        text = " ".join(rng.choice(passages).split())
        start = rng.randrange(max(1, len(text) - 100))
        query, history = text[start : start + rng.randint(8, 30)], text[start + 30 : start + rng.randint(60, 150)]
        yield _exported(f"copy_{index}", query, history, baseline.rewrite(query, history, length))


def pair_tasks(
    rows: Sequence[dict[str, Any]], baseline: KeywordBaseline, length: int, number: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Practice in the task in the customers' own words: a training query with the description of another one.

    What to keep of a description hardly depends on the query, so a few thousand of each make millions of tasks.
    """
    queries = [row["query"] for row in rows]
    descriptions = [text for text in map(_description, rows) if text]
    for index in range(number if descriptions else 0):
        query, history = rng.choice(queries), rng.choice(descriptions)
        yield _exported(f"pair_{index}", query, history, baseline.rewrite(query, history, length))


def _exported(query_id: str, query: str, history: str, rewrite: str) -> dict[str, Any]:
    """The fields of a BVT export row."""
    return {
        "query_id": query_id,
        "original_query": query,
        "history_context": f"用户: {history}" if history else "",
        "rewritten_query": rewrite,
        "recall_results": [],
        "recall_count": 0,
        "top1_score": 1.0,
        "avg_top3_score": 1.0,
        "success": True,
    }


def _description(row: dict[str, Any]) -> str:
    return str(row["history_context"]).removeprefix("用户: ")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_atomically(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.prepare_beir", description=__doc__)
    parser.add_argument("--beir", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--rewrite-length", type=int, default=30, help="longest rewrite in characters (default 30)")
    parser.add_argument("--word-tasks", type=int, default=0, help="practice in copying random words (default none)")
    parser.add_argument("--copy-tasks", type=int, default=0, help="practice in rewriting passages (default none)")
    parser.add_argument("--pair-tasks", type=int, default=0, help="practice on re-paired queries (default none)")
    parser.add_argument("--limit", type=int, help="use only the first N queries")
    parser.add_argument("--seed", type=int, default=0, help="of the copy tasks")
    args = parser.parse_args(argv)
    jieba.setLogLevel(logging.WARNING)
    try:
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
        practice = {
            "word_tasks": list(word_tasks(passages, args.word_tasks, rng)) if args.word_tasks else [],
            "copy_tasks": list(copy_tasks(passages, baseline, args.rewrite_length, args.copy_tasks, rng)),
            "pair_tasks": list(
                pair_tasks(train, baseline, args.rewrite_length, args.pair_tasks, random.Random(args.seed + 1))
            ),
        }
    except (BadInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_rows(args.out / "queries_train.jsonl", train)
    write_rows(args.out / "queries_heldout.jsonl", held_out)
    write_rows(args.out / "baseline_rewrites.jsonl", recorded)
    for name, tasks in practice.items():
        write_rows(args.out / f"{name}.jsonl", tasks)
    counts = ", ".join(f"{len(tasks)} {name.replace('_', ' ')}" for name, tasks in practice.items())
    print(f"queries: {len(train)} for training, {len(held_out)} held out; practice: {counts}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
