"""Reranking by an endpoint as Jina, Cohere and vLLM have it: POST …/rerank."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from plain_text.asked import asked_text
from rag.models.cross_encoder import is_constant
from rag.models.endpoint_embedder import split_address
from rag.models.failure import ModelFailure, reason

API_KEY_ENV = "RERANKER_API_KEY"
_TIMEOUT = 10.0
_ROUNDING = 1e-6  # what floats add to a 1


class RerankEndpoint:
    """`{model, query, documents, top_n}` to `results[{index, relevance_score}]`, one attempt: a user is waiting."""

    def __init__(self, address: str, gives_logits: bool = False):
        """
        Args:
            gives_logits: the server's scores are logits, of which the sigmoid is taken; else they lie in [0, 1].

        Raises:
            IngestError: `address` is not `URL#model`.
        """
        url, self._model = split_address(address)
        self._url = url if url.endswith("/rerank") else f"{url}/rerank"
        self.id = f"endpoint:{self._model}"
        self.constant_answers = 0
        self._gives_logits = gives_logits
        key = os.environ.get(API_KEY_ENV)
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=_TIMEOUT, trust_env=False
        )

    async def score(self, query: str, context: str, passages: Sequence[str]) -> NDArray[np.float32]:
        if not passages:
            return np.empty(0, np.float32)
        body = {
            "model": self._model,
            "query": asked_text(query, context),
            "documents": list(passages),
            "top_n": len(passages),
        }
        try:
            response = await self._http.post(self._url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelFailure(f"reranker {self._model}: {reason(error)}") from None
        if response.status_code != 200:
            raise ModelFailure(f"reranker {self._model}: HTTP {response.status_code}")
        try:
            scores = _read_scores(response.json(), len(passages))
        except (ValueError, TypeError, KeyError) as error:
            raise ModelFailure(f"reranker {self._model}: malformed answer ({reason(error)})") from None
        # The scale is declared: guessed from the scores, one value would change what all later ones mean.
        if self._gives_logits:
            scores = expit(scores)
        elif ((scores < -_ROUNDING) | (scores > 1 + _ROUNDING)).any():
            raise ModelFailure(
                f"reranker {self._model}: score {scores[np.abs(scores - 0.5).argmax()]:g} outside [0, 1]; "
                f"for a server that gives logits write logits:URL#{self._model}"
            )
        scores = np.clip(scores, 0, 1)
        self.constant_answers += is_constant(scores, self.id, self.constant_answers)
        return scores

    async def aclose(self) -> None:
        await self._http.aclose()


def _read_scores(answer: Any, n: int) -> NDArray[np.float32]:
    scores = np.full(n, np.nan, np.float32)
    for row in answer["results"]:
        index, score = row["index"], row["relevance_score"]
        if not isinstance(index, int) or not 0 <= index < n or isinstance(score, bool):
            raise ValueError(f"index {index!r} of {n}, score {score!r}")
        scores[index] = score
    if not np.isfinite(scores).all():
        raise ValueError(f"{int(np.isfinite(scores).sum())} of {n} passages have a finite score")
    return scores
