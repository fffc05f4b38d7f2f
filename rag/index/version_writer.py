"""Write a version of a knowledge base's index from the catalogue, beside the one that is live."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import IndexRecipe, KnowledgeBase, Version
from rag.documents.records import IngestError
from rag.documents.tokenizer import TOKENIZER_ID
from rag.index.engine import Engine, Point, Space, pages_of
from rag.index.keyword_vectors import points_of
from rag.models.embedder import Embedder, EmbedderMaker

_PAGE = 512
_MADE_BY = ("qdrant-edge-py", "qdrant-client", "jieba", "scikit-learn", "numpy")


@contextmanager
def only_build(folder: Path) -> Iterator[None]:
    """Wait until no other process builds a version in the data folder, and keep others from it."""
    with (folder / "building.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepare(
    catalogue: Catalogue, engine: Engine, models: EmbedderMaker, kb: KnowledgeBase
) -> tuple[IndexRecipe, Embedder, bytes]:
    """Prepare what a version is made with: recipe, fitted embedder, token statistics."""
    if catalogue.tokenizer_id(kb.id) != TOKENIZER_ID:
        catalogue.tokenize_again(kb.id)
    embedder = models.fit(key.text for key in catalogue.index_keys(kb.id) if not key.is_question)
    recipe = IndexRecipe(embedder.id, embedder.dimension, TOKENIZER_ID, engine.id, catalogue.mean_tokens(kb.id))
    return recipe, embedder, catalogue.token_frequencies(kb.id)


def write_version(
    catalogue: Catalogue,
    engine: Engine,
    kb: KnowledgeBase,
    recipe: IndexRecipe,
    embedder: Embedder,
    statistics: bytes,
    on_progress: Callable[[float], None],
) -> tuple[Version, int]:
    """Write a version that holds all that the catalogue does; return it, not published yet, and its number of points.

    Raises:
        IngestError: the knowledge base was deleted meanwhile.
    """
    made_by = json.dumps({"python": platform.python_version()} | {name: version(name) for name in _MADE_BY})
    identifier = catalogue.begin_version(kb.id, recipe, embedder.state, statistics, kb.revision, made_by)
    written, total = 0, kb.passages + kb.questions
    mean = _Mean(recipe.dimension)
    points = _points(catalogue, kb.id, embedder, recipe.mean_length, mean)
    for written in engine.write(Space(identifier, recipe.dimension), points):
        on_progress(min(0.99, written / max(1, total)))
    catalogue.keep_mean_vector(identifier, mean.to_bytes())
    try:
        return catalogue.version(identifier), written
    except KeyError:
        raise IngestError(f"{kb.tenant_id}/{kb.name}: was deleted meanwhile") from None


def _points(catalogue: Catalogue, kb_id: int, embedder: Embedder, mean_length: float, mean: _Mean) -> Iterator[Point]:
    for keys in pages_of(catalogue.index_keys(kb_id), _PAGE):
        points = points_of(keys, embedder, mean_length)
        mean.add([point.dense for point in points if not point.is_question])
        yield from points


class _Mean:
    """The mean of the passages' vectors, (dimension,)."""

    def __init__(self, dimension: int):
        self._sum, self._n = np.zeros(dimension, np.float64), 0

    def add(self, vectors: Sequence[NDArray[np.float32]]) -> None:
        if vectors:
            self._sum += np.sum(vectors, axis=0, dtype=np.float64)
            self._n += len(vectors)

    def to_bytes(self) -> bytes:
        return (self._sum / max(1, self._n)).astype(np.float32).tobytes()
