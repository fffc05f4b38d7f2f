"""Lists for a cross-encoder's training, from what people clicked and what they passed over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase
from rag.learning.click_evidence import Pair


def write_reranker_pairs(catalogue: Catalogue, kb: KnowledgeBase, pairs: Sequence[Pair], path: Path) -> dict[str, int]:
    """Write a line for each query with a sure answer and something shown that nobody clicked; passages that are gone
    are left out. Returns counts of queries, positives and negatives."""
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)
    counts = {"queries": 0, "positives": 0, "negatives": 0}
    with path.open("w", encoding="utf-8") as out:
        for query, of_query in by_query.items():
            labelled: list[tuple[str, int]] = []
            for pair in of_query:
                answers = pair.label == "positive"
                if not answers and (pair.clicked or not pair.seen):
                    continue
                passage = catalogue.passage(kb.id, pair.passage_key)
                if passage is not None:
                    labelled.append((passage.content, int(answers)))
            positives = sum(label for _, label in labelled)
            if not positives or positives == len(labelled):
                continue
            labelled.sort(key=lambda one: -one[1])
            docs, labels = zip(*labelled, strict=True)
            out.write(json.dumps({"query": query, "docs": docs, "labels": labels}, ensure_ascii=False) + "\n")
            counts["queries"] += 1
            counts["positives"] += positives
            counts["negatives"] += len(labelled) - positives
    return counts
