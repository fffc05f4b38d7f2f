"""The fusion weights that a knowledge base was fitted with (`rag.fit_fusion`), and which weights hold for a search."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from rag.retrieval.fusion import METHOD, FusionWeights


@dataclass(frozen=True, slots=True)
class FittedFusion:
    """`embedder_id`, `tokenizer_id`: of the index that it was fitted on. `reranker_id`: of the cross-encoder that
    `weights.rerank` is for, "" where none was on. `source`: clicks, or the judged queries' folder. `change`, `low`,
    `high`: of nDCG@10 on `held_out` queries against the weights before, with its 95 % interval."""

    weights: FusionWeights
    embedder_id: str
    tokenizer_id: str
    reranker_id: str
    source: str
    queries: int
    held_out: int
    before: float
    after: float
    change: float
    low: float
    high: float
    fitted_at: str

    @property
    def id(self) -> str:
        """Weights and what they are for, in 8 hex digits."""
        named = [asdict(self.weights), self.embedder_id, self.tokenizer_id, self.reranker_id]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:8]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


@lru_cache(maxsize=1024)
def read_fitted(stored: str) -> FittedFusion | None:
    """Read what `to_json` wrote; None for ""."""
    if not stored:
        return None
    values = json.loads(stored)
    return FittedFusion(**(values | {"weights": FusionWeights(**values["weights"])}))


@dataclass(frozen=True, slots=True)
class FusionInForce:
    """`name`: as an answer gives it."""

    weights: FusionWeights
    name: str


@lru_cache(maxsize=1024)
def fusion_in_force(
    stored: str,
    embedder_id: str,
    tokenizer_id: str,
    dense_weight: float,
    reranker_id: str = "",
    rerank_part: float = 1.0,
) -> FusionInForce:
    """Return the stored weights where they were fitted for this embedder and tokenizer, else the embedder's default.
    A cross-encoder that they were not fitted with has `rerank_part` of the order.

    Args:
        stored: `KnowledgeBase.fusion`.
        dense_weight: the embedder's own.
    """
    default = FusionWeights(dense_weight, rerank=rerank_part)
    fitted = read_fitted(stored)
    if fitted is None:
        return FusionInForce(default, f"{METHOD}: default ({default})")
    if (fitted.embedder_id, fitted.tokenizer_id) != (embedder_id, tokenizer_id):
        why = f"fitted for {fitted.embedder_id}, {fitted.tokenizer_id}"
        return FusionInForce(default, f"{METHOD}: default ({default}); {why}: run rag.fit_fusion again")
    weights = fitted.weights if fitted.reranker_id == reranker_id else replace(fitted.weights, rerank=rerank_part)
    return FusionInForce(weights, f"{METHOD}: fitted {fitted.id} ({weights})")
