"""The whole validation set, the same every time: rankings, metrics, and the scores they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
from ir_measures import RR, Qrel, ScoredDoc, nDCG
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sentence_transformers.base.evaluation import BaseEvaluator

from reranker.data.sampling import Group
from reranker.modelling.scoring import logits

MEASURES = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10}
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Measured:
    """`scores`: logits of all pairs; `relevant`: their labels; `sizes`: passages of each query; `values`: each
    measure's value by query, in [0, 1]."""

    scores: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    sizes: list[int]
    values: dict[str, NDArray[np.float64]]

    @property
    def means(self) -> dict[str, float]:
        return {name: round(float(values.mean()), 4) for name, values in self.values.items()}

    @property
    def constant(self) -> bool:
        """Whether every query's passages got one and the same score."""
        parts = np.split(self.scores, np.cumsum(self.sizes)[:-1])
        return all(float(np.ptp(part)) < 1e-6 for part in parts)


def measure(groups: Sequence[Group], scores: NDArray[np.float64]) -> Measured:
    """Rank each group by its scores. Of equal scores the one of an answer comes last, so that a constant score gains
    nothing."""
    relevant = np.concatenate([np.arange(len(group.passages)) < group.positives for group in groups])
    qrels, run, at = [], [], 0
    for number, group in enumerate(groups):
        n = len(group.passages)
        order = np.lexsort((relevant[at : at + n], -scores[at : at + n]))
        query = str(number)
        qrels += [Qrel(query, str(place), 1) for place in range(group.positives)]
        run += [ScoredDoc(query, str(place), -float(rank)) for rank, place in enumerate(order)]
        at += n
    values = {name: np.zeros(len(groups)) for name in MEASURES}
    names = {one: name for name, one in MEASURES.items()}
    for found in ir_measures.iter_calc(list(MEASURES.values()), qrels, run):
        values[names[found.measure]][int(found.query_id)] = found.value
    return Measured(scores, relevant, [len(group.passages) for group in groups], values)


def measure_model(cross_encoder: Any, groups: Sequence[Group]) -> Measured:
    pairs = [(group.query, passage.text) for group in groups for passage in group.passages]
    return measure(groups, logits(cross_encoder, pairs))


def interval(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean and its 95 % percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13), seeded."""
    mean = float(differences.mean())
    if len(differences) < 2 or np.ptp(differences) == 0:
        return mean, mean, mean
    found = bootstrap((differences,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)


class Validation(BaseEvaluator):
    """What the trainer calls. `last`: the newest measurement."""

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        self.primary_metric = METRIC
        self._groups = groups
        self.last: Measured | None = None

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        self.last = measure_model(model, self._groups)
        return {**self.last.means, "spread": round(float(self.last.scores.std()), 6)}
