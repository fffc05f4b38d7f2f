"""Embeddings by an OpenAI-compatible endpoint: POST /v1/embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

import numpy as np
import openai
from numpy.typing import NDArray

from guard.service_url import why_unfit
from rag.documents.records import IngestError
from rag.models.failure import ModelFailure, reason

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


@dataclass(frozen=True)
class Prompts:
    """What a model wants before a query and before a passage; E5: "query: " and "passage: ". Qwen3-Embedding and BGE
    want one for queries alone."""

    query: str = ""
    passage: str = ""


def with_prompts(retriever: str, query: str | None, passage: str | None) -> str:
    """Return the address `URL#model` with the prompts in it: `URL#model?query_prompt=…&passage_prompt=…`.

    Raises:
        IngestError: prompts for something else than an endpoint.
    """
    given = {name: text for name, text in (("query_prompt", query), ("passage_prompt", passage)) if text}
    if not given:
        return retriever
    if not retriever.startswith(("http://", "https://")):
        raise IngestError(f"{', '.join(given)}: for a retriever behind URL#model; a folder's model has its own")
    return f"{retriever}?{urlencode(given)}"


class EndpointMaker:
    """`id` names the model, not the address: the same model may move to another machine. It names the passages' prompt,
    which is in every stored vector, and not the queries'."""

    def __init__(self, address: str):
        """
        Raises:
            IngestError: `address` is not `URL#model`, with prompts as `with_prompts` writes them.
        """
        url, name = split_address(address)
        self._model, _, written = name.partition("?")
        texts = parse_qs(written)
        if unknown := texts.keys() - {"query_prompt", "passage_prompt"}:
            raise IngestError(f"{address}: {', '.join(sorted(unknown))}: neither query_prompt nor passage_prompt")
        self._prompts = Prompts(*("".join(texts.get(f"{kind}_prompt", [])) for kind in ("query", "passage")))
        self.id = _identity(self._model, self._prompts)
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
        dimension = len(_ask(self._client, self._model, ["dimension"])[0])
        return EndpointEmbedder(self._client, self._model, dimension, self._prompts)

    def load(self, state: bytes) -> EndpointEmbedder:
        if not state.isdigit():
            raise IngestError(f"{self.id}: its stored dimension is damaged")
        return EndpointEmbedder(self._client, self._model, int(state), self._prompts)


class EndpointEmbedder:
    fusion_weight = 1.0

    def __init__(self, client: openai.OpenAI, model: str, dimension: int, prompts: Prompts):
        self._client, self._model, self._prompts = client, model, prompts
        self.id, self.dimension = _identity(model, prompts), dimension
        self.state = str(dimension).encode()
        self._query_client = client.with_options(timeout=_QUERY_TIMEOUT, max_retries=0)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed(self._client, texts, self._prompts.passage)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self._embed(self._query_client, [text], self._prompts.query)[0]

    def _embed(self, client: openai.OpenAI, texts: Sequence[str], prompt: str) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        # Many servers refuse an empty input, and a batch with it.
        asked = [place for place, text in enumerate(texts) if text.strip()]
        for start in range(0, len(asked), _BATCH):
            places = asked[start : start + _BATCH]
            vectors = _ask(client, self._model, [prompt + texts[place] for place in places])
            if vectors.shape[1] != self.dimension:
                raise ModelFailure(f"{self.id}: vectors of {vectors.shape[1]} numbers, the index has {self.dimension}")
            rows[places] = vectors
        return rows


def _identity(model: str, prompts: Prompts) -> str:
    return f"endpoint:{model}" + (f" with passage prompt {prompts.passage!r}" if prompts.passage else "")


def _ask(client: openai.OpenAI, model: str, texts: list[str]) -> NDArray[np.float32]:
    """Ask for unit rows, in the order of `texts`."""
    try:
        answer = client.embeddings.create(model=model, input=texts, encoding_format="float")
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
