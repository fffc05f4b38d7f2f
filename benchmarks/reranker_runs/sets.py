"""A BEIR set split for training and testing, its BM25 candidates, and training files made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import bm25s
import numpy as np

from benchmarks.retrieval_runs.peers import K1, B, jieba_words, latin_words
from plain_text.asked import asked_text, context_text
from reranker.data.cleaning import clean
from reranker.data.reading import read_data
from reranker.data.records import Passage, Record, fold
from reranker.data.split import shared, split_records, without_shared
from reward.records.files import BadInput, read_jsonl, writing_lines

CANDIDATES = 30
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class RerankSet:
    """`passages`: by id, title first. Records of the three parts. `check`: what parts share
    (`reranker.data.split.shared`): no query and no answer. `rewrites`: what is searched with, by a record's query,
    where it is not the query."""

    name: str
    passages: dict[str, str]
    train: list[Record]
    validation: list[Record]
    test: list[Record]
    check: dict[str, dict[str, int]]
    rewrites: dict[str, str] = field(default_factory=dict)

    def candidates(self, records: Sequence[Record]) -> list[dict[str, float]]:
        """Return each record's candidates (`bm25_candidates`)."""
        return bm25_candidates(self.passages, [self.rewrites.get(one.query, one.query) for one in records])


def read_set(
    folder: Path, limits: tuple[int, int, int], seed: int, lists: Path | None = None, in_context: bool = False
) -> RerankSet:
    """Read a BEIR folder. The query is `rewrite` where the rows have one (it stands alone), else `text`.

    Args:
        in_context: the query is `text` after the end of its `history`, as the service's reranker reads it; `rewrite` is
            what is searched with.
        limits: the most queries of training, validation and test.
        lists: training data in the trainer's own JSONL. Without it training has queries of the folder. Where these have
            a `split`, dev is for testing, and what shares a query or an answer with it is left out; else a share of the
            connected components is.
    """
    reading = read_data([folder])
    rows = [row for _, row in read_jsonl(folder / "queries.jsonl")]
    alone = {number: str(row.get("rewrite") or row["text"]).strip() for number, row in enumerate(rows, start=1)}
    texts = alone
    if in_context:
        said = {
            number: context_text("", "", "\n".join(row.get("history", ()))) for number, row in enumerate(rows, start=1)
        }
        texts = {number: asked_text(str(row["text"]).strip(), said[number]) for number, row in enumerate(rows, start=1)}
    records = [
        Record(texts[_row(record)], record.positives, (), record.source) for record in reading.records
    ]  # without descriptions: they would make every query easy
    of_dev = {number for number, row in enumerate(rows, start=1) if row.get("split") == "dev"}
    if lists is not None:
        # What shares a query or an answer with the file is neither validated nor tested on.
        train = _named_as_in(reading.pool, clean(read_data([lists]).records)[0])
        records, _ = without_shared(records, train)
        of_folder = split_records(records, (0.2, 0.0), seed)
        split, test = replace(of_folder, train=train), of_folder.train
    elif of_dev:
        test = [record for record in records if _row(record) in of_dev]
        others, _ = without_shared([record for record in records if _row(record) not in of_dev], test)
        split = split_records(sorted(others, key=_row), (0.1, 0.0), seed)
    else:
        split = split_records(records, (0.1, 0.2), seed)
        test = split.heldout
    order = np.random.default_rng(seed)
    parts = [
        [part[i] for i in sorted(order.permutation(len(part))[:limit])]
        for part, limit in zip((split.train, split.validation, test), limits, strict=True)
    ]
    check = {"train and test": shared(parts[0], parts[2]), "train and validation": shared(parts[0], parts[1])}
    if any(found["queries"] or found["answers"] for found in check.values()):
        raise BadInput(f"{folder}: the parts share queries or answers: {check}")
    passages = {passage.doc_id: passage.text for passage in reading.pool}
    rewrites = {texts[number]: rewrite for number, rewrite in alone.items()}
    return RerankSet(folder.name, passages, parts[0], parts[1], parts[2], check, rewrites)


def _named_as_in(pool: Sequence[Passage], records: Sequence[Record]) -> list[Record]:
    """Return the records with the pool's ids for its passages."""
    names = {fold(passage.text): passage.doc_id for passage in pool}

    def named(passages: Sequence[Passage]) -> tuple[Passage, ...]:
        return tuple(replace(one, doc_id=names.get(fold(one.text), one.doc_id)) for one in passages)

    return [replace(one, positives=named(one.positives), negatives=named(one.negatives)) for one in records]


def _row(record: Record) -> int:
    return int(record.source.rpartition(" ")[2])


def bm25_candidates(passages: Mapping[str, str], queries: Sequence[str]) -> list[dict[str, float]]:
    """Return the best 30 passages of each query by Lucene's BM25, over jieba words or Latin ones: id → score as a share
    of the best one's, in (0, 1], best first."""
    cut = jieba_words if any(_CHINESE.search(query) for query in queries) else latin_words
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index([cut(text) for text in passages.values()], show_progress=False)
    names = list(passages)
    found = []
    for query in queries:
        known = [token for token in cut(query) if token in index.vocab_dict]
        scores = index.get_scores(known) if known else np.zeros(len(names))
        order = np.argsort(-scores, kind="stable")[:CANDIDATES]
        found.append({names[place]: float(scores[place] / scores[order[0]]) for place in order if scores[place] > 0})
    return found


def write_training_file(
    path: Path, records: Sequence[Record], candidates: Sequence[Iterable[str]], one: RerankSet
) -> Path:
    """Write records as the trainer reads them; what BM25 found beside the answers is negative."""
    with writing_lines(path) as write:
        for record, names in zip(records, candidates, strict=True):
            answers = {passage.doc_id for passage in record.positives}
            negatives = [
                *record.negatives,
                *(Passage(name, one.passages[name]) for name in names if name not in answers),
            ]
            sides = {"positives": record.positives, "negatives": negatives}
            row = {"query_text": record.query} | {
                side: [{"doc_id": passage.doc_id, "text": passage.text} for passage in passages]
                for side, passages in sides.items()
            }
            write(json.dumps(row, ensure_ascii=False))
    return path
