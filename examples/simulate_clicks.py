"""Let simulated customers click on what a batch test found, and write what their clicks say for a reranker's training.

`python -m examples.simulate_clicks --input test_sft.xlsx --qrels qrels.tsv --out clicks/reranker_pairs.jsonl`

It takes the place of a month of clicks from your own service (`rag.learn_from_clicks`). A customer knows what answers
the question: that is what the qrels are read for. How customers look and click is `benchmarks.reranker_runs.clicks`.
Nothing else of the qrels is written: a passage counts as an answer where the clicks say so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reranker_runs.clicks import simulate_month
from data_prep.readers.qrels import read_qrels
from data_prep.readers.sources import Sources
from plain_text.asked import asked_text, context_text
from reranker.data.records import Passage, Record
from reward.records.commands import command
from reward.records.files import BadInput, writing_lines
from reward.settings.data import SourceSettings

_NEEDED = ("original_query", "query_id", "recall_results")
_CONTEXT = ("user_profile", "history_summary", "history_context")


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.simulate_clicks", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="workbook of data_prep.run_bvt")
    parser.add_argument("--qrels", type=Path, required=True, help="what the customers know")
    parser.add_argument("--out", type=Path, required=True, help="JSONL for reranker.train")
    parser.add_argument("--showings", type=int, default=20, help="of each query's list at least (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    relevant = read_qrels(args.qrels)
    records: list[Record] = []
    shown: list[list[str]] = []
    passages: dict[str, str] = {}
    for batch in Sources([args.input], SourceSettings(), _NEEDED).batches():
        for row in batch.to_pylist():
            if row["refused"]:
                continue
            hits = {hit["doc_id"]: hit["content"] for hit in json.loads(row["recall_results"] or b"[]")}
            passages |= hits
            query = asked_text(row["original_query"], context_text(*(row[name] or "" for name in _CONTEXT)))
            wanted = tuple(Passage(name, hits.get(name, "")) for name in relevant.get(row["query_id"] or "", ()))
            records.append(Record(query, wanted, (), f"{row['file']}: row {row['row']}"))
            shown.append(list(hits))
    month = simulate_month(records, shown, passages, args.seed, args.showings)
    if not month.records:
        raise BadInput(f"{args.input}: no hit is clicked often enough to count as an answer")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with writing_lines(args.out) as write:
        for record in month.records:
            sides = {"positives": record.positives, "negatives": record.negatives}
            lists = {name: [{"doc_id": p.doc_id, "text": p.text} for p in side] for name, side in sides.items()}
            write(json.dumps({"query_text": record.query, **lists}, ensure_ascii=False))
    print(f"{month.clicks} clicks on {month.rows} passages shown; answers for {len(month.records)} of {len(records)} ")
    print(f"queries, {month.wrong} of {month.right + month.wrong} of them wrong -> {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
