"""What new questions bring, tried on a copy of the knowledge base before anybody is served with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import FILE
from rag.catalogue.records import KnowledgeBase
from rag.index.edge_engine import EdgeEngine
from rag.index.indexer import Indexer
from rag.learning.judged_queries import DEPTH, MEASURES, JudgedQueries, paired_difference, query_metrics
from rag.learning.question_renewal import Renewal, renew_questions
from rag.models.embedder import EmbedderMaker
from rag.models.language_model import LanguageModel
from rag.models.reranker import Reranker
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import SearchRequest

Metrics = dict[str, dict[str, float]]


async def rehearse(
    catalogue: Catalogue,
    kb: KnowledgeBase,
    maker: EmbedderMaker,
    to_do: Mapping[str, Sequence[str]],
    language_model: LanguageModel | None,
    reranker: Reranker | None,
    judged: JudgedQueries | None,
) -> tuple[Renewal, Metrics]:
    """Renew the questions of the passages `to_do` (key → queries it does not answer) in a copy that is built, then
    updated as a service does it. The metrics are measure → before, after, their difference (change) and its 95 %
    interval (low, high); none without `judged`."""
    with TemporaryDirectory(prefix="learn_from_clicks_") as name:
        folder = Path(name)
        target = sqlite3.connect(folder / FILE)
        catalogue.database.connection.backup(target)
        target.close()
        copy = Catalogue(folder)
        # Embedded also where the service uses a server: the copy is nobody else's.
        indexer = Indexer(copy, EdgeEngine(folder), maker)
        try:
            if judged is None:
                return await renew_questions(copy, kb, to_do, language_model, reranker), {}
            indexer.rebuild(kb, lambda share: None)
            before = await _rank(copy, indexer, kb, judged)
            renewal = await renew_questions(copy, kb, to_do, language_model, reranker)
            after = await _rank(copy, indexer, kb, judged) if renewal.questions else before
            return renewal, _metrics(before, after, judged)
        finally:
            indexer.close()
            copy.close()


async def _rank(
    catalogue: Catalogue, indexer: Indexer, kb: KnowledgeBase, judged: JudgedQueries
) -> dict[str, list[str]]:
    indexer.catch_up(kb)
    now = catalogue.find_knowledge_base(kb.tenant_id, kb.name)
    assert now is not None
    retriever = Retriever(catalogue, indexer)
    rankings: dict[str, list[str]] = {}
    for query, text in judged.texts.items():
        found = await retriever.retrieve(now, SearchRequest(text, kb.tenant_id, top_k=DEPTH))
        rankings[query] = [hit.doc_id for hit in found.hits]
    return rankings


def _metrics(before: dict[str, list[str]], after: dict[str, list[str]], judged: JudgedQueries) -> Metrics:
    old, new = query_metrics(before, judged.relevant), query_metrics(after, judged.relevant)
    found = {}
    for name in MEASURES:
        change = paired_difference(new[name], old[name])
        values = (old[name].mean(), new[name].mean(), *change)
        found[name] = {
            part: round(float(value), 4)
            for part, value in zip(("before", "after", "change", "low", "high"), values, strict=True)
        }
    return found
