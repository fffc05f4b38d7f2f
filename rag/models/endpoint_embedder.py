"""Embeddings by an OpenAI-compatible endpoint: POST /v1/embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
import openai
from numpy.typing import NDArray

from guard.service_url import why_unfit
from rag.documents.records import IngestError
from rag.models.embedder import TRAINED_WEIGHT
from rag.models.failure import ModelFailure, reason
from rag.models.prompts import PRESETS, Prompts, family_of, same_query_prompt

API_KEY_ENV = "EMBEDDING_API_KEY"
NO_KEY = "none"  # the client insists on a key; a self-hosted server asks for none
_BATCH = 64
_TIMEOUT = 60.0
_QUERY_TIMEOUT = 5.0  # one attempt: a user is waiting
_RETRIES = 3  # of the client's own, with growing waits, after 408, 409, 429, 5xx and broken connections


def split_address(address: str) -> tuple[str, str]:
    """Split `URL#model` into (URL, model).

    Raises:
        IngestError: one of them is missing, or the URL holds a secret.
    """
    if problem := why_unfit(address):
        raise IngestError(problem)
    url, _, model = address.partition("#")
    if not model or not url.startswith(("http://", "https://")):
        raise IngestError(f"{address}: say which model, as in http://127.0.0.1:8000/v1#bge-m3")
    return url.rstrip("/"), model


class EndpointMaker:
    """`id` names the model, not the address: the same model may move to another machine. It names the passages' prompt,
    which is in every stored vector. The queries' prompt is stored beside the vectors (`EndpointEmbedder.state`)."""

    def __init__(self, address: str, prompts: Prompts | None = None):
        """Open `URL#model`; without `prompts` those of the model's family.

        Raises:
            IngestError: `address` is not `URL#model`.
        """
        url, self._model = split_address(address)
        self._prompts = PRESETS[family_of(self._model)] if prompts is None else prompts
        self.id = f"endpoint:{self._model}{self._prompts.identity}"
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get(API_KEY_ENV) or NO_KEY,
            timeout=_TIMEOUT,
            max_retries=_RETRIES,
            # A proxy meant for the internet must not swallow calls inside the network.
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )

    def fit(self, texts: Iterable[str]) -> EndpointEmbedder:
        """Ask for one vector, to learn how long they are; the texts are not read."""
        probe = EndpointEmbedder(self._client, self.id, self._model, 0, self._prompts)
        dimension = len(probe.ask(self._client, ["dimension"], is_query=False)[0])
        return EndpointEmbedder(self._client, self.id, self._model, dimension, self._prompts)

    def load(self, state: bytes) -> EndpointEmbedder:
        dimension, _, stored = state.decode(errors="replace").partition("\n")
        if not dimension.isdigit():
            raise IngestError(f"{self.id}: its stored dimension is damaged")
        prompts = same_query_prompt(self.id, self._prompts, json.loads(stored) if stored else None)
        return EndpointEmbedder(self._client, self.id, self._model, int(dimension), prompts)


class EndpointEmbedder:
    """`state`: the dimension; in a second line, as JSON, the queries' prompt where it is known."""

    dense_weight = TRAINED_WEIGHT

    def __init__(self, client: openai.OpenAI, identity: str, model: str, dimension: int, prompts: Prompts):
        self._client, self._model, self._prompts = client, model, prompts
        self.id, self.dimension = identity, dimension
        known = "" if prompts.query is None else f"\n{json.dumps(prompts.query, ensure_ascii=False)}"
        self.state = f"{dimension}{known}".encode()
        self._query_client = client.with_options(timeout=_QUERY_TIMEOUT, max_retries=0)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._rows(self._client, texts, is_query=False)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._rows(self._query_client, [text], is_query=True)[0]

    def embed_lines(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        asked = self._rows(self._query_client, queries, is_query=True)
        return np.concatenate([asked, self._rows(self._query_client, passages, is_query=False)])

    def _rows(self, client: openai.OpenAI, texts: Sequence[str], *, is_query: bool) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        # Many servers refuse an empty input, and a batch with it.
        asked = [place for place, text in enumerate(texts) if text.strip()]
        for start in range(0, len(asked), _BATCH):
            places = asked[start : start + _BATCH]
            rows[places] = self._checked(self.ask(client, [texts[place] for place in places], is_query=is_query))
        return rows

    def ask(self, client: openai.OpenAI, texts: Sequence[str], *, is_query: bool) -> NDArray[np.float32]:
        """Ask for unit rows of queries or passages, in the order of `texts`.

        Raises:
            ModelFailure: the endpoint gave no usable answer.
        """
        prompt = (self._prompts.query or "") if is_query else self._prompts.passage
        extra = {"input_type": "query" if is_query else "passage"} if self._prompts.by_input_type else None
        return _ask(client, self._model, [prompt + text for text in texts], extra)

    def _checked(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if vectors.shape[1] != self.dimension:
            raise ModelFailure(f"{self.id}: vectors of {vectors.shape[1]} numbers, the index has {self.dimension}")
        return vectors


def _ask(client: openai.OpenAI, model: str, texts: list[str], extra: dict[str, str] | None) -> NDArray[np.float32]:
    """Ask for unit rows, in the order of `texts`; `extra` joins the request's body."""
    try:
        answer = client.embeddings.create(model=model, input=texts, encoding_format="float", extra_body=extra)
    except (openai.OpenAIError, ValueError) as error:  # ValueError: no JSON, or no data in it
        raise ModelFailure(f"embeddings of {model}: {reason(error)}") from None
    try:
        by_place = {row.index: row.embedding for row in answer.data}
        rows = np.array([by_place[place] for place in range(len(texts))], np.float32)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelFailure(f"embeddings of {model}: the answer holds no vector for each text") from None
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ModelFailure(f"embeddings of {model}: the answer holds vectors of different lengths or no numbers")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
