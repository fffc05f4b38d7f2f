"""Score passages with a sentence-transformers CrossEncoder in a local folder: it reads the original query, the
conversation and the passage together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.models.failure import ModelFailure, reason
from rag.models.model_folder import fingerprint, load_model

_BATCH = 32
# Query and context together, in characters: with a passage of 300 it fits the 512 tokens that most rerankers read.
_ASKED_LENGTH = 200
_ENOUGH_PASSAGES = 10
_log = logging.getLogger(__name__)


def asked_text(query: str, context: str) -> str:
    """Return the context's end, then the query: models cut a long text at its end, and the query must not be what is
    lost."""
    room = _ASKED_LENGTH - len(query)
    return f"{context[-room:]}\n{query}" if context and room > 0 else query


def is_constant(scores: NDArray[np.float32], reranker_id: str, seen: int) -> bool:
    """Return whether a list of passages got one and the same score; logged the first time (`seen` is 0)."""
    constant = len(scores) >= _ENOUGH_PASSAGES and bool((scores == scores[0]).all())
    if constant and not seen:
        _log.warning("reranker %s gave all %d passages the same score: is it trained?", reranker_id, len(scores))
    return constant


class LocalCrossEncoder:
    """Reads (context and query, passage). One call at a time is computed, in a thread of its own; a call whose caller
    has gone before its turn is not computed."""

    def __init__(self, folder: Path):
        """
        Raises:
            IngestError: the folder's model cannot be loaded, was made for something else, or gives more than one score.
        """
        self._model = load_model(folder, lambda: _open(folder))
        # The library gives an embedding model a random head, and its scores would look like any others.
        architecture = (self._model.model.config.architectures or [""])[0]
        if not architecture.endswith(("ForSequenceClassification", "ForCausalLM")):
            raise IngestError(f"{folder}: no reranker: {architecture} has no head that gives scores")
        labels = self._model.num_labels
        if labels != 1:
            raise IngestError(f"{folder}: a reranker gives one score, this model gives {labels}")
        self.id = fingerprint(folder)
        self.constant_answers = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cross-encoder")

    async def score(self, query: str, context: str, passages: Sequence[str]) -> NDArray[np.float32]:
        if not passages:
            return np.empty(0, np.float32)
        asked = asked_text(query, context)
        pairs = [(asked, passage) for passage in passages]
        try:
            scores = await asyncio.get_running_loop().run_in_executor(self._worker, self._predict, pairs)
        except Exception as error:  # torch's and the model's own: out of memory, no padding token
            raise ModelFailure(f"{self.id}: {reason(error)}") from None
        if not np.isfinite(scores).all():
            raise ModelFailure(f"{self.id}: scores that are no numbers")
        self.constant_answers += is_constant(scores, self.id, self.constant_answers)
        return scores

    def _predict(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        import torch

        # Named here because a model may have been saved with another: logits become shares with any head.
        scores = self._model.predict(
            pairs, batch_size=_BATCH, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
        )
        return np.asarray(scores, np.float32)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)


def _open(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), local_files_only=True)
