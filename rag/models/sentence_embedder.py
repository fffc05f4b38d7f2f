"""Embeddings by a sentence-transformers model in a local folder, such as bge-large-zh or Qwen3-Embedding."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.documents.records import IngestError
from rag.models.embedder import TRAINED_WEIGHT
from rag.models.failure import ModelFailure, reason
from rag.models.model_folder import fingerprint, load_model
from rag.models.prompts import PRESETS, Prompts, family_of, same_query_prompt

_BATCH = 32


class SentenceEmbedder:
    """Its own maker: there is nothing to fit. One call at a time is computed, with all the cores that torch may use.

    Prompts are those given, else those of the model's own configuration, else those of its family. `state`: the
    queries' prompt as JSON, b"" where it is the model's own, which its fingerprint covers."""

    dense_weight = TRAINED_WEIGHT

    def __init__(self, folder: Path, prompts: Prompts | None = None):
        """
        Raises:
            IngestError: the folder's model cannot be loaded, or takes no `input_type`.
        """
        self._model = load_model(folder, lambda: _open(folder))
        own = any(self._model.prompts.values())
        if prompts is None and not own and (family := family_of(folder.resolve().name)) != "none":
            prompts = PRESETS[family]
        if prompts is not None and prompts.by_input_type:
            raise IngestError(f"{folder}: prompts=input-type is for a server that adds the prompts itself")
        self._prompts = prompts
        self.id = f"{fingerprint(folder)}{prompts.identity if prompts else ''}"
        self.state = b"" if prompts is None or prompts.query is None else json.dumps(prompts.query).encode()
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        if not self.dimension:
            raise IngestError(f"{folder}: the model does not say how long its vectors are")
        self._one_at_a_time = threading.Lock()

    def fit(self, texts: Iterable[str]) -> SentenceEmbedder:
        return self

    def load(self, state: bytes) -> SentenceEmbedder:
        try:
            stored = json.loads(state) if state else None
        except ValueError:
            raise IngestError(f"{self.id}: its stored query prompt is damaged") from None
        if not isinstance(stored, str | None) or (stored and self._prompts is None):
            raise IngestError(f"{self.id}: the index was built for the query prompt {stored!r}, this model has its own")
        if self._prompts is not None:
            self._prompts = same_query_prompt(self.id, self._prompts, stored)
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        encode = self._model.encode_document if self._prompts is None else self._prompted(self._prompts.passage)
        return self._encode(encode, list(texts))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._embed_queries([text])[0]

    def embed_lines(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        return np.concatenate([self._embed_queries(list(queries)), self.embed(passages)])

    def _embed_queries(self, texts: list[str]) -> NDArray[np.float32]:
        encode = self._model.encode_query if self._prompts is None else self._prompted(self._prompts.query or "")
        return self._encode(encode, texts)

    def _prompted(self, prompt: str) -> Any:
        return partial(self._model.encode, prompt=prompt)

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
