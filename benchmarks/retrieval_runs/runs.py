"""Rankings by the service's own engine: catalogue, index and retriever, put together as the service does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.retrieval_runs.sets import Asked
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.records import KnowledgeBase
from rag.documents.records import Document
from rag.index.edge_engine import EdgeEngine
from rag.index.indexer import Indexer
from rag.learning.judged_queries import DEPTH
from rag.models.embedder import EmbedderMaker
from rag.models.language_model import LanguageModel
from rag.models.reranker import Reranker
from rag.retrieval.channels import Channels
from rag.retrieval.retriever import CHANNEL_DEPTH, Retriever
from rag.retrieval.search_request import Hit, SearchRequest

TENANT = "benchmark"
QUERY2DOC_SECONDS = 30.0  # what it brings is measured here, not whether it comes in time
_OFF = dict.fromkeys(("dense", "keyword", "doc2query", "query2doc", "rerank", "rewrite"), False)


def switched_on(*names: str) -> Channels:
    """Switch these channels on and all others off."""
    return Channels(**(_OFF | dict.fromkeys(names, True)))


class EngineRuns:
    """One knowledge base, filled, built and searched. `failures`: what channels said that were on and not used, and how
    often."""

    def __init__(
        self, folder: Path, embedder: EmbedderMaker, language_model: LanguageModel | None, reranker: Reranker | None
    ):
        self._loop = asyncio.Runner()
        self._models = [model for model in (language_model, reranker) if model is not None]
        self._catalogue = Catalogue(folder)
        self._indexer = Indexer(self._catalogue, EdgeEngine(folder), embedder)
        self._kb = self._catalogue.create_knowledge_base(TENANT, "default").id
        self._retriever = Retriever(
            self._catalogue,
            self._indexer,
            language_model=language_model,
            reranker=reranker,
            query2doc_timeout=QUERY2DOC_SECONDS,
        )
        self.failures: Counter[str] = Counter()

    def build(self, documents: Iterable[Document]) -> None:
        """Make these the knowledge base's documents, and build its index anew."""
        self._catalogue.put_documents(self._kb, documents, prune=True)
        self._indexer.rebuild(self._knowledge_base(), lambda share: None)
        self._indexer.catch_up(self._knowledge_base())  # opens what was built

    def rank(
        self,
        queries: Mapping[str, Asked],
        channels: Channels,
        show: Callable[[], None],
        *,
        by_relevance: bool = False,
    ) -> dict[str, list[str]]:
        """Return query id → keys of the best `DEPTH` passages. `by_relevance`: the fused candidates in the order of
        their reranker score instead of their fused one."""
        return self._loop.run(self._rank(queries, channels, show, by_relevance))

    def close(self) -> None:
        for model in self._models:
            self._loop.run(model.aclose())
        self._loop.close()
        self._indexer.close()
        self._catalogue.close()

    async def _rank(
        self, queries: Mapping[str, Asked], channels: Channels, show: Callable[[], None], by_relevance: bool
    ) -> dict[str, list[str]]:
        kb = self._knowledge_base()
        rankings: dict[str, list[str]] = {}
        for query, asked in queries.items():
            request = SearchRequest(
                query=asked.query,
                tenant_id=TENANT,
                top_k=CHANNEL_DEPTH if by_relevance else DEPTH,
                rewritten_query=asked.text,
                context=asked.context,
                channels=channels,
            )
            answer = await self._retriever.retrieve(kb, request)
            for name, state in answer.channels.items():
                if state.startswith(("unavailable", "fell back")):
                    self.failures[f"{name} {state}"] += 1
            hits = sorted(answer.hits, key=_relevance) if by_relevance else answer.hits
            rankings[query] = [hit.doc_id for hit in hits[:DEPTH]]
            show()
        return rankings

    def _knowledge_base(self) -> KnowledgeBase:
        found = self._catalogue.find_knowledge_base(TENANT, "default")
        assert found is not None
        return found


def _relevance(hit: Hit) -> float:
    return -hit.reranker_score
