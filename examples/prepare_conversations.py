"""Turn a retrieval set of conversations into the inputs of the flow: queries, recorded rewrites, heuristics to beat.

`python -m examples.prepare_conversations --set DIR --out DIR`

DIR holds a set in BEIR layout: `corpus.jsonl`, `qrels.tsv` and `queries.jsonl`. A query's row has `_id`, `text` (the
question of one turn), `history` (earlier questions and answers in turn), `rewrite` (a person's) and, where known,
`title`, `section` and `split`. A query without a relevant passage is left out. The prompt's history is the topic and
the last two turns, long answers cut. Rows whose `split` is not "train" are held out; where no row has one, a fifth of
the titles, chosen by a hash: no article is on both sides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.readers.qrels import read_qrels
from examples.prepare_beir import is_held_out, write_rows
from reward.records.commands import command
from reward.records.files import BadInput, read_jsonl

TURNS, ANSWER_WORDS = 2, 25
TEXTS = ("_id", "text", "rewrite")


def history_of(row: dict[str, Any]) -> str:
    """Write a query's conversation as lines: `Topic: …`, then `Q: …` and `A: …` of its last turns.

    >>> history_of({"title": "Ann", "section": "Life", "history": ["Who was she?", "A poet."]})
    'Topic: Ann - Life\\nQ: Who was she?\\nA: A poet.'
    """
    topic = " - ".join(part for part in (row.get("title"), row.get("section")) if part)
    lines = [f"Topic: {topic}"] if topic else []
    for place, text in enumerate(row["history"]):
        if place >= len(row["history"]) - 2 * TURNS:
            words = text.split()
            cut = words if place % 2 == 0 else words[:ANSWER_WORDS]
            lines.append(f"{'A' if place % 2 else 'Q'}: {' '.join(cut)}")
    return "\n".join(lines)


def read_conversations(folder: Path) -> list[dict[str, Any]]:
    """Read the queries that have a relevant passage.

    Raises:
        BadInput: a file is missing, a row lacks a field, or no query has a relevant passage.
    """
    judged, file = read_qrels(folder / "qrels.tsv"), folder / "queries.jsonl"
    rows = []
    for number, row in read_jsonl(file):
        for field in TEXTS:
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise BadInput(f"{file}: row {number}: {field} is missing or empty")
        history = row.get("history")
        if not isinstance(history, list) or not all(isinstance(text, str) for text in history) or len(history) % 2:
            raise BadInput(f"{file}: row {number}: history is no list of questions and answers in turn")
        if row["_id"] in judged:
            rows.append(row)
    if not rows:
        raise BadInput(f"{folder}: no query has a relevant passage in qrels.tsv")
    return rows


def held_out_rows(rows: Sequence[dict[str, Any]]) -> list[bool]:
    """Tell which rows are held out: by their `split`, or by a hash of their title (of their id without one)."""
    if any(row.get("split") for row in rows):
        return [row.get("split") != "train" for row in rows]
    return [is_held_out(str(row.get("title") or row["_id"])) for row in rows]


def bvt_row(row: dict[str, Any]) -> dict[str, Any]:
    """Make a row for the BVT batch test: query_id, query, history_context, slices."""
    return {
        "query_id": row["_id"],
        "query": " ".join(row["text"].split()),
        "history_context": history_of(row),
        "slices": ["follow_up" if row["history"] else "first_turn"],
    }


@command
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.prepare_conversations", description=__doc__)
    parser.add_argument("--set", required=True, type=Path, dest="folder", metavar="DIR")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args(argv)
    rows = read_conversations(args.folder)
    held_out = held_out_rows(rows)
    asked = [bvt_row(row) for row in rows]
    if all(held_out) or not any(held_out):
        raise BadInput(f"{args.folder}: {sum(held_out)} of {len(rows)} queries are held out; both sides need some")
    recorded = [
        {**query, "rewritten_query": " ".join(row["rewrite"].split())} for query, row in zip(asked, rows, strict=True)
    ]
    with_title = [
        {**query, "rewritten_query": f"{query['query']} {row.get('title') or ''}".strip()}
        for query, row in zip(asked, rows, strict=True)
    ]
    write_rows(args.out / "queries_train.jsonl", [q for q, out in zip(asked, held_out, strict=True) if not out])
    write_rows(args.out / "queries_heldout.jsonl", [q for q, out in zip(asked, held_out, strict=True) if out])
    write_rows(args.out / "baseline_rewrites.jsonl", recorded)
    write_rows(args.out / "question_and_title.jsonl", with_title)
    print(f"queries: {held_out.count(False)} for training, {held_out.count(True)} held out")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
