"""Dense vectors of passages and queries.

A trained model brings what words do not (docs/benchmarks.md). With `keyword`, the default, there are no vectors: a
search finds only what shares a word or a character with the query.

`hashing` needs no download and no GPU: character uni- and bigrams hashed into a fixed number of buckets, damped by
log(1 + tf) and weighted by the bucket's inverse document frequency in the knowledge base. Without damping and IDF the
frequent characters dominate: over 3615 medical passages recall@10 of 500 short questions was .16 instead of .26. Beside
the keyword channel it changes nDCG@10 by no more than .004 and doubles the cost of a search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

from rag.documents.records import IngestError
from rag.documents.tokenizer import normalize_text
from rag.models.prompts import split_prompts

# 2048 lifts the dense channel alone by 2 points of recall@10 and the hybrid not at all, for twice the time.
DIMENSION = 1024
DEFAULT_RETRIEVER = KEYWORD = "keyword"
HASHING = "hashing"
EMBEDDER_ID = f"hash-char12-idf-{DIMENSION}-v2"
_FIT_BATCH = 4096


# Of a trained model: on the sets of docs/benchmarks.md no single channel is better by more than .01.
TRAINED_WEIGHT = 0.7


class Embedder(Protocol):
    """Turns texts into unit vectors. An index remembers `id` and `dimension` and refuses any other embedder. With a
    dimension of 0 there is no dense channel.

    `dense_weight`: the dense channel's part of the fused score where nothing was fitted (`rag.fit_fusion`), in [0, 1].
    `state`: what `load` needs to make the same embedder again, b"" when nothing was learned. Methods block and may be
    called by many threads.
    """

    @property
    def id(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def dense_weight(self) -> float: ...
    @property
    def state(self) -> bytes: ...
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return an array (len(texts), dimension) of passages' or questions' unit rows; zero for a text without
        content.

        Raises:
            ModelFailure: the model gave no usable answer.
        """
        ...

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector (dimension,) of a query, with the model's prompt for queries if it has one.

        Raises:
            ModelFailure: the model gave no usable answer.
        """
        ...

    def embed_lines(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Return an array (len(queries) + len(passages), dimension) of one request's unit rows: its queries with the
        model's prompt for queries, then its passages with that for passages; zero for a text without content.

        Raises:
            ModelFailure: the model gave no usable answer.
        """
        ...


class EmbedderMaker(Protocol):
    """An embedding model before it has seen a knowledge base. `id` is that of the embedders it makes."""

    @property
    def id(self) -> str: ...
    def fit(self, texts: Iterable[str]) -> Embedder:
        """Fit the model to the knowledge base of these texts, which are read once at most.

        Raises:
            ModelFailure: the model gave no usable answer.
        """
        ...

    def load(self, state: bytes) -> Embedder:
        """Load the embedder that had this `state`.

        Raises:
            IngestError: no such state was ever stored.
        """
        ...


def embedder_maker(retriever: str) -> EmbedderMaker:
    """Open `keyword` (no vectors), `hashing`, the folder of a sentence-transformers model, or `URL#model`: the URL of
    an OpenAI-compatible API ending in /v1, its key in the environment variable EMBEDDING_API_KEY if it needs one. The
    two latter may say what the model wants before queries and passages (`rag.models.prompts`).

    Raises:
        IngestError: none of these, or the folder's model cannot be loaded.
    """
    if retriever == KEYWORD:
        return NoVectors()
    if retriever == HASHING:
        return HashingMaker()
    named, prompts = split_prompts(retriever)
    if named.startswith(("http://", "https://")):
        from rag.models.endpoint_embedder import EndpointMaker

        return EndpointMaker(named, prompts)
    if Path(named).is_dir():
        # Imported when asked for: the import alone takes seconds, and the default does without.
        from rag.models.sentence_embedder import SentenceEmbedder

        return SentenceEmbedder(Path(named), prompts)
    raise IngestError(
        f"retriever {retriever}: neither 'keyword' nor 'hashing', nor a model's folder, nor http(s)://…/v1#model"
    )


class NoVectors:
    """No dense channel. It is its own maker, since it learns nothing."""

    id = "keyword"
    dimension = 0
    dense_weight = 0.0
    state = b""

    def fit(self, texts: Iterable[str]) -> NoVectors:
        return self

    def load(self, state: bytes) -> NoVectors:
        return self

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.empty((len(texts), 0), np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return np.empty(0, np.float32)

    def embed_lines(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        return self.embed([*queries, *passages])


class HashingMaker:
    id = EMBEDDER_ID

    def fit(self, texts: Iterable[str]) -> HashingEmbedder:
        """Fit the model to the knowledge base of these texts, which are read once at most."""
        frequencies, n, stream = np.zeros(DIMENSION, np.int64), 0, iter(texts)
        while batch := list(islice(stream, _FIT_BATCH)):
            frequencies += np.bincount(_hashed(batch).indices, minlength=DIMENSION)
            n += len(batch)
        return HashingEmbedder((np.log((n + 1) / (frequencies + 1)) + 1).astype(np.float32))

    def load(self, state: bytes) -> HashingEmbedder:
        if len(state) != DIMENSION * 4:
            raise IngestError(f"{EMBEDDER_ID}: its stored weights are {len(state)} bytes, not {DIMENSION * 4}")
        return HashingEmbedder(np.frombuffer(state, np.float32))


class HashingEmbedder:
    """The model-free embedder. `idf`: (DIMENSION,) weights of the buckets, learned from the passages and stored."""

    id = EMBEDDER_ID
    dimension = DIMENSION
    # Its evidence is lexical like BM25's, but weaker. On English claims nDCG@10 falls by .004 with .1, by .02 with .4.
    dense_weight = 0.1

    def __init__(self, idf: NDArray[np.float32]):
        self._idf = idf

    @property
    def state(self) -> bytes:
        return self._idf.tobytes()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not len(texts):
            return np.empty((0, DIMENSION), np.float32)
        counts = _hashed(texts)
        counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data)) * self._idf[counts.indices]
        rows = counts.toarray()
        # By hand: of a single query, scikit-learn's normalize checks its input for longer than it computes.
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        return self.embed([text])[0]

    def embed_lines(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        return self.embed([*queries, *passages])


_VECTORIZER = HashingVectorizer(
    preprocessor=normalize_text,
    analyzer="char",
    ngram_range=(1, 2),
    n_features=DIMENSION,
    alternate_sign=True,
    norm=None,
    dtype=np.float32,
)


def _hashed(texts: Sequence[str]) -> csr_matrix:
    """Hash tokens to signed bucket counts, (len(texts), DIMENSION)."""
    return _VECTORIZER.transform(texts)
