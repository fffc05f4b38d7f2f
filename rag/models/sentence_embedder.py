"""Embeddings by a sentence-transformers model in a local folder, such as bge-large-zh or Qwen3-Embedding."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.models.failure import ModelFailure, reason
from rag.models.model_folder import fingerprint, load_model

_BATCH = 32


class SentenceEmbedder:
    """Its own maker: there is nothing to fit. Prompts for queries and documents are those of the model's own
    configuration. One call at a time is computed, with all the cores that torch may use."""

    fusion_weight = 1.0
    state = b""

    def __init__(self, folder: Path):
        """
        Raises:
            IngestError: the folder's model cannot be loaded.
        """
        self._model = load_model(folder, lambda: _open(folder))
        self.id = fingerprint(folder)
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        if not self.dimension:
            raise IngestError(f"{folder}: the model does not say how long its vectors are")
        self._one_at_a_time = threading.Lock()

    def fit(self, texts: Iterable[str]) -> SentenceEmbedder:
        return self

    def load(self, state: bytes) -> SentenceEmbedder:
        if state:
            raise IngestError(f"{self.id}: a state is stored, but this model learns nothing from a knowledge base")
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        return self._encode(self._model.encode_document, list(texts))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._encode(self._model.encode_query, [text])[0]

    def _encode(self, encode: Any, texts: list[str]) -> NDArray[np.float32]:
        try:
            with self._one_at_a_time:
                rows = encode(texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        except Exception as error:  # torch's and the model's own, out of memory among them
            raise ModelFailure(f"{self.id}: {reason(error)}") from None
        if not np.isfinite(rows).all():
            raise ModelFailure(f"{self.id}: vectors that are no numbers")
        return np.asarray(rows, np.float32)


def _open(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True)
