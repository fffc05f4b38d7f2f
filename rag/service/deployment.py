"""Everything a running service holds, opened from a data folder and settings."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi import HTTPException, Request

from guard.web.draining import InFlight
from rag.catalogue.access_keys import AccessKeys, Scope
from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Clicks
from rag.catalogue.records import KnowledgeBase
from rag.fair_shares import REST, FairShares
from rag.index.engine import EngineUnavailable
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from rag.models.failure import ModelFailure
from rag.models.language_model import LanguageModel
from rag.models.reranker import open_reranker
from rag.models.rewriter import Rewriter
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import Retrieval, SearchRequest
from rag.service.access import Gate, allowed_tenant
from rag.service.knowledge_writer import KnowledgeWriter
from rag.service.limits import Quotas
from rag.service.metrics import Metrics
from rag.service.request_log import record_of
from rag.service.rerankers import Rerankers
from rag.settings import ServiceSettings, TenantSettings

_LOG = logging.getLogger(__name__)


@dataclass
class Deployment:
    catalogue: Catalogue
    settings: ServiceSettings
    gate: Gate
    retriever: Retriever
    writer: KnowledgeWriter
    clicks: Clicks
    metrics: Metrics
    language_model: LanguageModel | None
    rewriters: list[Rewriter]
    indexer: Indexer
    rerankers: Rerankers
    quotas: Quotas = field(default_factory=Quotas)
    in_flight: InFlight = field(default_factory=InFlight)

    async def admit(self, http: Request, given: str | None, scope: Scope = "search") -> str:
        """Count the request against its tenant's quota and return the tenant.

        Raises:
            HTTPException: 403, 422 (see `allowed_tenant`), 429.
        """
        record = record_of(http.scope)
        if record.access is None and given is None:
            tenants = {kb.tenant_id for kb in self.catalogue.knowledge_bases()}
            given = tenants.pop() if len(tenants) == 1 else None  # who else could be meant
        tenant_id = allowed_tenant(record.access, given, scope)
        if record.access is not None:
            record.tenant = tenant_id
        await self.quotas.admit(tenant_id, self.settings.tenant(tenant_id).requests_per_minute)
        return tenant_id

    def find(self, http: Request, tenant_id: str, name: str) -> KnowledgeBase:
        """
        Raises:
            HTTPException: 404, no such tenant or knowledge base.
        """
        kb = self.catalogue.find_knowledge_base(tenant_id, name)
        if kb is None:
            unknown = f"tenant {tenant_id!r}"
            if self.gate.is_closed() or self.catalogue.knowledge_bases(tenant_id):
                unknown = f"knowledge base {name!r} of {unknown}"
            raise HTTPException(404, f"unknown {unknown}")
        record_of(http.scope).tenant = tenant_id
        return kb

    async def retrieve(self, http: Request, kb: KnowledgeBase, request: SearchRequest) -> Retrieval:
        """Retrieve and record the metrics of it."""
        record = record_of(http.scope)
        if self.settings.tenant(kb.tenant_id).log_query_text:
            record.query = request.query
        channels = request.channels.over(self.settings.tenant(kb.tenant_id).channels)
        # Called on the event loop: about a millisecond, less than handing it to a thread and back costs here.
        retrieval = await self.retriever.retrieve(kb, replace(request, channels=channels))
        record.channels = retrieval.channels
        self.metrics.count_channels(retrieval.channels)
        for stage, seconds in retrieval.seconds.items():
            self.metrics.observe_stage(stage, seconds)
        return retrieval

    async def close(self) -> None:
        await self.writer.close()
        for rewriter in self.rewriters:
            await rewriter.aclose()
        if self.language_model is not None:
            await self.language_model.aclose()
        await self.rerankers.aclose()
        await asyncio.to_thread(self.retriever.close)
        await asyncio.to_thread(self.indexer.close)
        self.catalogue.close()


def open_deployment(
    folder: Path, settings: ServiceSettings, keys_wanted: bool, open_to_everybody: bool = False
) -> Deployment:
    """
    Raises:
        IngestError: the data folder, or a model named in the settings, cannot be used.
    """
    # Models first: a service that cannot have them must not start.
    catalogue = Catalogue(folder)
    maker = embedder_maker(settings.embedder)
    searches = FairShares(1, REST)
    indexer = Indexer(catalogue, open_engine(folder), maker, searches)
    language_model = LanguageModel(settings.language_model) if settings.language_model else None
    reranker = open_reranker(settings.reranker) if settings.reranker else None
    named = {name: _rewriter(tenant) for name, tenant in settings.tenants.items()}
    rewriters = {name: rewriter for name, rewriter in named.items() if rewriter is not None}
    default_rewriter = _rewriter(settings.default)
    # The first search of each knowledge base should not pay for opening its index.
    metrics = Metrics(catalogue)
    rerankers = Rerankers(catalogue, reranker, metrics)
    _open_indexes(catalogue, indexer)
    return Deployment(
        catalogue=catalogue,
        settings=settings,
        gate=Gate(AccessKeys(catalogue), keys_wanted, open_to_everybody),
        retriever=Retriever(
            catalogue,
            indexer,
            rewriters=rewriters,
            default_rewriter=default_rewriter,
            language_model=language_model,
            rerankers=rerankers,
            rerank_timeout=settings.rerank_timeout,
            rerank_part=settings.rerank_part,
            query2doc_timeout=settings.query2doc_timeout,
            depth=settings.top_k,
            searches=searches,
        ),
        writer=KnowledgeWriter(catalogue, indexer, settings, metrics),
        clicks=Clicks(catalogue),
        metrics=metrics,
        language_model=language_model,
        rewriters=[*rewriters.values(), *([default_rewriter] if default_rewriter else [])],
        indexer=indexer,
        rerankers=rerankers,
    )


def _open_indexes(catalogue: Catalogue, indexer: Indexer) -> None:
    """Open the indexes now, so that no search has to wait for it; say what cannot be searched before anybody asks."""
    for kb in catalogue.knowledge_bases():
        try:
            indexer.open(kb)
        except (ModelFailure, EngineUnavailable) as error:  # may be there when it is needed
            _LOG.warning("%s/%s: not open yet: %s", kb.tenant_id, kb.name, error)


def _rewriter(tenant: TenantSettings) -> Rewriter | None:
    return Rewriter(tenant.rewriter_url, tenant.rewriter_timeout) if tenant.rewriter_url else None
