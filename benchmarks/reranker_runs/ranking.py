"""Candidates scored by a model, a query at a time and kept, and put in order; what the order is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, Qrel, ScoredDoc, nDCG
from numpy.typing import NDArray

from rag.retrieval.fusion import FusionWeights, final_order
from reranker.data.records import Record
from reranker.modelling.scoring import logits, shares

NDCG, MRR = "nDCG@10", "MRR@10"
MEASURES = {NDCG: nDCG @ 10, MRR: RR @ 10}
_QUERIES = 10  # scored together, and kept

Values = dict[str, NDArray[np.float64]]


def kept_scores(
    cache: Path,
    load: Callable[[], Any],
    records: Sequence[Record],
    candidates: Sequence[Mapping[str, float]],
    passages: Mapping[str, str],
) -> list[dict[str, float]]:
    """Return each query's candidates with their scores in [0, 1]. What is scored is kept in `cache`: the next call goes
    on from there. `load` opens the model, once it is needed."""
    known = [json.loads(line) for line in cache.read_text().splitlines()] if cache.is_file() else []
    model = load() if len(known) < len(records) else None
    for start in range(len(known), len(records), _QUERIES):
        part = slice(start, start + _QUERIES)
        names = [
            (record, name) for record, found in zip(records[part], candidates[part], strict=True) for name in found
        ]
        scores = iter(shares(logits(model, [(record.query, passages[name]) for record, name in names])).tolist())
        new = [{name: next(scores) for name in found} for found in candidates[part]]
        with cache.open("a") as out:
            out.writelines(json.dumps(one) + "\n" for one in new)
        known += new
    return known


def ordered(
    candidates: Sequence[Mapping[str, float]], scores: Sequence[Mapping[str, float]], part: float
) -> list[list[str]]:
    """Order each query's candidates as the service does, with the reranker's `part`; equal ones stay as they came."""
    weights = FusionWeights(0.0, rerank=part)
    found = []
    for shares_of, scored in zip(candidates, scores, strict=True):
        places = dict(enumerate(shares_of))
        fused = {place: shares_of[name] for place, name in places.items()}
        order = final_order(fused, {place: scored[name] for place, name in places.items()}, weights)
        found.append([places[place] for place in order])
    return found


def values_of(records: Sequence[Record], rankings: Sequence[Iterable[str]]) -> Values:
    """Return each measure's value by query, in [0, 1]."""
    qrels = [Qrel(str(q), passage.doc_id, 1) for q, record in enumerate(records) for passage in record.positives]
    run = [
        ScoredDoc(str(q), name, -float(place)) for q, names in enumerate(rankings) for place, name in enumerate(names)
    ]
    names = {measure: name for name, measure in MEASURES.items()}
    values = {name: np.zeros(len(records)) for name in MEASURES}
    for found in ir_measures.iter_calc(list(MEASURES.values()), qrels, run):
        values[names[found.measure]][int(found.query_id)] = found.value
    return values
