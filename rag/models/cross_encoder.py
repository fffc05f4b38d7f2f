"""Score passages with a sentence-transformers CrossEncoder in a local folder: it reads the original query, the
conversation and the passage together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from plain_text.asked import asked_text
from rag.documents.records import IngestError
from rag.models.failure import ModelFailure, reason
from rag.models.model_folder import fingerprint, load_model

_BATCH = 32
_ENOUGH_PASSAGES = 10
_READ_LENGTH = 8000  # characters of a passage that are cut into tokens at all: more than any such model reads
_MOST_CALLS = 16  # computed together
_REMEMBERED = 100_000  # pairs, about 15 MB
_log = logging.getLogger(__name__)


def is_constant(scores: NDArray[np.float32], reranker_id: str, seen: int) -> bool:
    """Return whether a list of passages got one and the same score; logged the first time (`seen` is 0)."""
    constant = len(scores) >= _ENOUGH_PASSAGES and bool((scores == scores[0]).all())
    if constant and not seen:
        _log.warning("reranker %s gave all %d passages the same score: is it trained?", reranker_id, len(scores))
    return constant


class _Call:
    """Pairs that one request waits for. `gone`: nobody waits any more."""

    def __init__(self, pairs: list[tuple[str, str]]):
        self.pairs = pairs
        self.future: Future[NDArray[np.float32]] = Future()
        self.gone = False


class LocalCrossEncoder:
    """Reads (context and query, passage), in a thread of its own. What several requests wait for is computed together.
    A request whose caller has gone (`rerank_timeout`) is computed no further than the batch at hand. A pair is computed
    once: a group's rewrites of one query find mostly the same passages."""

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
        # By a digest of the pair; used by the worker's thread alone.
        self._remembered: LRUCache[bytes, float] = LRUCache(_REMEMBERED)
        self._waiting: SimpleQueue[_Call] = SimpleQueue()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cross-encoder")

    async def score(self, query: str, context: str, passages: Sequence[str]) -> NDArray[np.float32]:
        if not passages:
            return np.empty(0, np.float32)
        asked = asked_text(query, context)
        call = _Call([(asked, passage[:_READ_LENGTH]) for passage in passages])
        self._waiting.put(call)
        try:
            self._worker.submit(self._work)
            scores = await asyncio.wrap_future(call.future)
        except Exception as error:  # torch's and the model's own: out of memory, no padding token; a closed model
            raise ModelFailure(f"{self.id}: {reason(error)}") from None
        finally:
            call.gone = True
        if not np.isfinite(scores).all():
            raise ModelFailure(f"{self.id}: scores that are no numbers")
        self.constant_answers += is_constant(scores, self.id, self.constant_answers)
        return scores

    def _work(self) -> None:
        """Compute what waits now; nothing when an earlier turn has computed it."""
        calls: list[_Call] = []
        with suppress(Empty):
            while len(calls) < _MOST_CALLS:
                calls.append(self._waiting.get_nowait())
        calls = [call for call in calls if not call.gone]
        try:
            self._compute(calls)
        except Exception:
            # One request's texts must not cost the others their scores.
            for call in calls:
                try:
                    self._compute([call])
                except Exception as error:
                    if not call.future.cancelled():
                        call.future.set_exception(error)

    def _compute(self, calls: Sequence[_Call]) -> None:
        keys = [[_digest(pair) for pair in call.pairs] for call in calls]
        known = {key: self._remembered[key] for of_call in keys for key in of_call if key in self._remembered}
        # Which calls wait for a pair that is not known yet. Texts of like length together: less padding.
        waiting: dict[bytes, list[_Call]] = {}
        new: dict[bytes, tuple[str, str]] = {}
        for call, of_call in zip(calls, keys, strict=True):
            for key, pair in zip(of_call, call.pairs, strict=True):
                if key not in known:
                    new[key] = pair
                    waiting.setdefault(key, []).append(call)
        places = sorted(new, key=lambda key: len(new[key][1]))
        while places := [key for key in places if not all(call.gone for call in waiting[key])]:
            batch, places = places[:_BATCH], places[_BATCH:]
            found = dict(zip(batch, self._predict([new[key] for key in batch]).tolist(), strict=True))
            known |= found
            self._remembered.update((key, score) for key, score in found.items() if isfinite(score))
        for call, of_call in zip(calls, keys, strict=True):
            if not call.gone and not call.future.done():
                call.future.set_result(np.array([known[key] for key in of_call], np.float32))

    def _predict(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        import torch

        # Named here because a model may have been saved with another: logits become shares with any head.
        scores = self._model.predict(
            pairs, batch_size=_BATCH, activation_fn=torch.nn.Sigmoid(), show_progress_bar=False
        )
        return np.asarray(scores, np.float32)

    async def aclose(self) -> None:
        await asyncio.to_thread(self._worker.shutdown, cancel_futures=True)
        with suppress(Empty):
            while True:
                self._waiting.get_nowait().future.cancel()


def _digest(pair: tuple[str, str]) -> bytes:
    return blake2b("\0".join(pair).encode(errors="surrogatepass"), digest_size=16).digest()


def _open(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), local_files_only=True)
