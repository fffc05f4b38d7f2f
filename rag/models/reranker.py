"""A reranker: relevance of passages by a model that reads query, conversation and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.models.cross_encoder import LocalCrossEncoder
from rag.models.rerank_endpoint import RerankEndpoint


class Reranker(Protocol):
    """`constant_answers`: how often ten or more passages all got one and the same score, the mark of a broken model."""

    constant_answers: int

    @property
    def id(self) -> str: ...
    async def score(self, query: str, context: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Return the relevance in [0, 1] of each passage, in their order.

        Raises:
            ModelFailure: the model gave no usable scores.
        """
        ...

    async def aclose(self) -> None: ...


class RerankerChoice(Protocol):
    """Which reranker a tenant has now; None where it has none."""

    def of(self, tenant_id: str) -> Reranker | None: ...


def open_reranker(reranker: str) -> Reranker:
    """Open a CrossEncoder's folder, or `URL#model` of a rerank endpoint (…/v1 or …/v1/rerank), whose key is in the
    environment variable RERANKER_API_KEY if it needs one. Its scores lie in [0, 1]; of an endpoint that gives logits it
    is `logits:URL#model`.

    Raises:
        IngestError: neither, or the folder's model cannot be loaded or does not give one score.
    """
    if reranker.startswith(("http://", "https://")):
        return RerankEndpoint(reranker)
    if reranker.startswith(("logits:http://", "logits:https://")):
        return RerankEndpoint(reranker.removeprefix("logits:"), gives_logits=True)
    if Path(reranker).is_dir():
        return LocalCrossEncoder(Path(reranker))
    raise IngestError(f"reranker {reranker}: neither a model's folder nor http(s)://…/v1#model")
