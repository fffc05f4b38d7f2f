"""Lists for a cross-encoder's training, from what people clicked and what they passed over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from guard.personal.masking import mask_id, mask_message
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase
from rag.learning.click_evidence import Pair

_PROMPT_STYLE = "click_log"  # a user's own words, not a generated question


def write_reranker_pairs(catalogue: Catalogue, kb: KnowledgeBase, pairs: Sequence[Pair], path: Path) -> dict[str, int]:
    """Write a line for each query with a sure answer and something shown that nobody clicked; passages that are gone
    are left out. Personal data is masked. Return counts of queries, positives and negatives.

    A line is a record of the reranker's trainer: `query_text`, `positives` and `negatives` (each `doc_id`, `text`),
    `source_chunk` (empty: no passage gave rise to the query), `meta` (`domain`, `prompt_style`).
    """
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)
    counts = {"queries": 0, "positives": 0, "negatives": 0}
    with path.open("w", encoding="utf-8") as out:
        for query, of_query in by_query.items():
            passages: dict[str, list[dict[str, str]]] = {"positive": [], "negative": []}
            for pair in of_query:
                answers = pair.label == "positive"
                if not answers and (pair.clicked or not pair.seen):
                    continue
                passage = catalogue.passage(kb.id, pair.passage_key)
                if passage is not None:
                    one = {"doc_id": mask_id(passage.key), "text": mask_message(passage.content)}
                    passages["positive" if answers else "negative"].append(one)
            positives, negatives = passages["positive"], passages["negative"]
            if not positives or not negatives:
                continue
            record = {
                "query_text": mask_message(query),
                "positives": positives,
                "negatives": negatives,
                "source_chunk": "",
                "meta": {"domain": kb.tenant_id, "prompt_style": _PROMPT_STYLE},
            }
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            counts["queries"] += 1
            counts["positives"] += len(positives)
            counts["negatives"] += len(negatives)
    return counts
