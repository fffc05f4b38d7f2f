"""Queries whose relevant passages are known, and how well rankings answer them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import ir_measures
import numpy as np
from ir_measures import RR, Measure, Qrel, R, ScoredDoc, nDCG
from numpy.typing import NDArray
from scipy.stats import bootstrap

from plain_text.text_file import open_text
from rag.documents.records import IngestError

MEASURES: dict[str, Measure] = {"R@1": R @ 1, "R@5": R @ 5, "R@10": R @ 10, "MRR@10": RR @ 10, "nDCG@10": nDCG @ 10}
DEPTH = 10
_RESAMPLES, _BATCH = 10_000, 500


@dataclass(frozen=True)
class JudgedQueries:
    """By query id: `texts`; `relevant` passage keys, at least one; `descriptions`, what the asker wrote at length,
    where there is one."""

    texts: dict[str, str]
    relevant: dict[str, tuple[str, ...]]
    descriptions: dict[str, str] = field(default_factory=dict)


class Difference(NamedTuple):
    """A mean paired difference and its 95 % interval."""

    mean: float
    low: float
    high: float


def read_judged_queries(folder: Path) -> JudgedQueries:
    """Read a BEIR folder's `queries.jsonl` (_id, text, perhaps descriptions) and `qrels.tsv` (query-id, corpus-id,
    score). Queries without a relevant passage are left out.

    Raises:
        IngestError: a file is missing, a row is not as it should be, no query is left.
    """
    relevant = _read_qrels(folder / "qrels.tsv")
    texts: dict[str, str] = {}
    descriptions: dict[str, str] = {}
    for number, line in _lines(folder / "queries.jsonl"):
        try:
            row = json.loads(line)
            query, text, long = str(row["_id"]), row["text"].strip(), row.get("descriptions") or []
        except (ValueError, TypeError, KeyError, AttributeError):
            raise IngestError(f"{folder / 'queries.jsonl'}: row {number}: expected an object with _id, text") from None
        if query in relevant and text:
            texts[query] = text
            if long:
                descriptions[query] = str(long[0])
    if not texts:
        raise IngestError(f"{folder}: no query has a relevant passage")
    return JudgedQueries(texts, {query: relevant[query] for query in texts}, descriptions)


def query_metrics(
    rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.float64]]:
    """Return each measure's value for every query of `rankings`, in their order, in [0, 1]; a query that found nothing
    has 0.

    Args:
        rankings: query id → passage keys, best first, without repeats.
        relevant: query id → keys of its relevant passages, all equally so.
    """
    qrels = [Qrel(query, key, 1) for query in rankings for key in dict.fromkeys(relevant[query])]
    # Scores that fall with the place: the order given decides.
    run = [ScoredDoc(query, key, -float(place)) for query, keys in rankings.items() for place, key in enumerate(keys)]
    places = {query: place for place, query in enumerate(rankings)}
    names = {measure: name for name, measure in MEASURES.items()}
    metrics = {name: np.zeros(len(rankings)) for name in MEASURES}
    for found in ir_measures.iter_calc(list(MEASURES.values()), qrels, run):
        metrics[names[found.measure]][places[found.query_id]] = found.value
    return metrics


def paired_difference(after: NDArray[np.float64], before: NDArray[np.float64]) -> Difference:
    """Compute the mean of `after - before` over the queries with its seeded percentile bootstrap interval (Efron &
    Tibshirani 1993, ch. 13); the interval is a point where all differences are equal."""
    differences = after - before
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        return Difference(mean, mean, mean)
    found = bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, batch=_BATCH, method="percentile", rng=np.random.default_rng(0)
    )
    return Difference(mean, float(found.confidence_interval.low), float(found.confidence_interval.high))


def _read_qrels(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for number, line in _lines(path):
        row = line.split("\t")
        if number == 1 and not row[-1].strip().lstrip("-").isdigit():
            continue  # headings
        # BEIR's three columns, or TREC's four with a constant in the second place.
        if len(row) not in (3, 4) or not row[-1].strip().lstrip("-").isdigit():
            raise IngestError(f"{path}: row {number}: expected query-id, corpus-id and a whole number, tab-separated")
        if int(row[-1]) > 0:
            found.setdefault(row[0].strip(), []).append(row[-2].strip())
    return {query: tuple(dict.fromkeys(keys)) for query, keys in found.items()}


def _lines(path: Path) -> list[tuple[int, str]]:
    lines = open_text(path, IngestError).lines()
    return [(number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1) if line.strip()]
