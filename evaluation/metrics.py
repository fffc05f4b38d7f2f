"""Retrieval metrics of one system: per query through ir-measures, then means with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
from ir_measures import RR, Measure, Qrel, R, ScoredDoc, Success, nDCG

from evaluation.significance import bootstrap_difference, bootstrap_means, win_rate
from reward.records.sample import Hit

MEASURES: dict[str, Measure] = {
    "success@1": Success @ 1,
    "recall@1": R @ 1,
    "recall@5": R @ 5,
    "recall@10": R @ 10,
    "mrr@10": RR @ 10,
    "ndcg@10": nDCG @ 10,
}
# The only metric of a tenant without known relevant passages: the reranker's score of the first hit.
TOP1 = "top1"


def ranked_doc_ids(hits: Sequence[Hit]) -> list[str]:
    """Return document ids in the service's order.

    A hit without id, or a second passage of the same document, keeps its position under a name that matches nothing:
    positions stay those the user sees, and no document counts twice.
    """
    ids: dict[str, None] = {}
    for place, hit in enumerate(hits, start=1):
        ids[f"\0hit {place}" if hit.doc_id is None or hit.doc_id in ids else hit.doc_id] = None
    return list(ids)


def query_metrics(
    rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Compute the metrics of every query, each in [0, 1].

    Args:
        rankings: query id -> document ids, best first, without repeats. A query that found nothing scores 0.
        relevant: query id -> ids of its relevant documents (binary relevance), for every query of `rankings`.
    """
    # Numbers for names: a name of ours or of the service's may hold what ends a text in C, where the measures are
    # computed; two names would be one.
    queries = {query: str(number) for number, query in enumerate(rankings)}
    documents: dict[str, str] = {}

    def number_of(document: str) -> str:
        return documents.setdefault(document, str(len(documents)))

    qrels = [Qrel(queries[query], number_of(doc), 1) for query in rankings for doc in dict.fromkeys(relevant[query])]
    # Scores that fall with the position: the service's order decides, never its scores.
    run = [
        ScoredDoc(queries[query], number_of(doc), float(len(docs) - place))
        for query, docs in rankings.items()
        for place, doc in enumerate(docs)
    ]
    metrics: dict[str, dict[str, float]] = {query: dict.fromkeys(MEASURES, 0.0) for query in rankings}
    of_number, names = list(rankings), {measure: name for name, measure in MEASURES.items()}
    for found in ir_measures.iter_calc(list(MEASURES.values()), qrels, run):
        metrics[of_number[int(found.query_id)]][names[found.measure]] = float(found.value)
    return metrics


def reciprocal_rank(rank: int | None) -> float:
    """Return 1 / rank, 0 when nothing relevant was found. Higher is better."""
    return 0.0 if rank is None else 1.0 / rank


def summarise(metrics: Sequence[Mapping[str, float]], *, seed: int = 0) -> dict[str, Any]:
    """Compute means over queries, `n`, and `ci95`: bootstrap intervals, with the same resamples for every system.

    Args:
        metrics: one mapping of metric -> value a query, all with the same keys. At least one.
    """
    names = list(metrics[0])
    values = [[query[name] for name in names] for query in metrics]
    intervals = bootstrap_means(values, seed=seed)
    return {
        **{
            name: math.fsum(column) / len(metrics)
            for name, column in zip(names, zip(*values, strict=True), strict=True)
        },
        "n": len(metrics),
        "ci95": {name: list(interval) for name, interval in zip(names, intervals, strict=True)},
    }


def compare_systems(
    a: Sequence[float],
    b: Sequence[float],
    metric: str,
    metrics_a: Sequence[Mapping[str, float]],
    metrics_b: Sequence[Mapping[str, float]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute one `win_rate` entry: counts, rate with interval, sign test, paired difference of the mean of `metric`.

    Args:
        a, b: what decides each query (`reciprocal_rank`, or the top-1 score), in the same order of queries.
    """
    result = win_rate(a, b, seed=seed)
    difference, interval = bootstrap_difference(
        [query[metric] for query in metrics_a], [query[metric] for query in metrics_b], seed=seed
    )
    return {
        "win": result.win,
        "tie": result.tie,
        "loss": result.loss,
        "rate": result.rate,
        "ci95": list(result.interval) if result.interval else None,
        "sign_p": result.sign_p,
        "difference": {metric: difference, "ci95": list(interval)},
    }
