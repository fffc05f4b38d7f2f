"""Write a version of a knowledge base's index from the catalogue, beside the one that is live."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

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
    for written in engine.write(
        Space(identifier, recipe.dimension), _points(catalogue, kb.id, embedder, recipe.mean_length)
    ):
        on_progress(min(0.99, written / max(1, total)))
    try:
        return catalogue.version(identifier), written
    except KeyError:
        raise IngestError(f"{kb.tenant_id}/{kb.name}: was deleted meanwhile") from None


def _points(catalogue: Catalogue, kb_id: int, embedder: Embedder, mean_length: float) -> Iterator[Point]:
    for keys in pages_of(catalogue.index_keys(kb_id), _PAGE):
        yield from points_of(keys, embedder, mean_length)
