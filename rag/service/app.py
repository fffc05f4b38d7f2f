"""The HTTP service over one data folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.trustedhost import TrustedHostMiddleware

from guard.web.body_limits import BodyLimits
from guard.web.draining import Draining
from guard.web.origins import LOOPBACK, Origins
from rag.catalogue.records import KnowledgeBase
from rag.documents.tokenizer import load_dictionary
from rag.retrieval.lexical_reranker import LexicalReranker
from rag.service.access import bearer
from rag.service.answer_routes import answer_routes
from rag.service.contracts import Health, KnowledgeBaseHealth
from rag.service.deployment import Deployment, open_deployment
from rag.service.dify_routes import dify_routes
from rag.service.docs_page import add_docs_page
from rag.service.knowledge_contracts import VersionInfo
from rag.service.knowledge_routes import knowledge_routes
from rag.service.problems import Problem, explain_problems
from rag.service.request_log import RequestLog
from rag.service.search_routes import search_routes
from rag.settings import ServiceSettings

THREADS = 32
PAGE = Path(__file__).parent / "page"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def create_app(
    folder: Path, settings: ServiceSettings, keys_wanted: bool, *, open_to_everybody: bool = False
) -> FastAPI:
    """Return the service over a data folder; what it opened is closed when it shuts down. `keys_wanted`: callers need
    an access key. Without it they need one from the moment there is a key, unless it is `open_to_everybody`.

    Raises:
        IngestError: the data folder, or a model named in the settings, cannot be used.
    """
    load_dictionary()
    deployment = open_deployment(folder, settings, keys_wanted, open_to_everybody)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Threads that wait for a child process or the disk must not keep the others from having one.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "rag"))
        deployment.in_flight.drain_on_signals()
        deployment.writer.rebuild_lost()
        await deployment.rerankers.load()
        yield
        await deployment.close()

    app = FastAPI(
        title="RAG service",
        summary="Hybrid retrieval and answers over a tenant's knowledge bases",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(search_routes(deployment))
    app.include_router(dify_routes(deployment))
    app.include_router(answer_routes(deployment))
    app.include_router(knowledge_routes(deployment))
    _add_operator_routes(app, deployment)
    add_docs_page(app)
    explain_problems(app)
    app.add_middleware(BodyLimits, max_document_bytes=int(settings.max_body_mb * 1e6), seconds=settings.body_seconds)
    app.add_middleware(Draining, in_flight=deployment.in_flight)
    app.add_middleware(Origins)
    # A key is no browser's to give away: with keys, any name may lead here.
    hosts = ["*"] if keys_wanted else [*LOOPBACK, *settings.allowed_hosts]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(RequestLog, metrics=deployment.metrics)
    return app


def _add_operator_routes(app: FastAPI, deployment: Deployment) -> None:
    gate = deployment.gate

    @app.get(
        "/healthz",
        tags=["operation"],
        summary="Whether the service takes requests, and what it serves",
        responses={200: {"model": Health}, 503: {"model": Health, "description": "stopping: running requests finish"}},
    )
    async def healthz(http: Request) -> Response:
        """With access keys only the key's own knowledge bases are listed."""
        closed = gate.is_closed()
        access = gate.keys.check(bearer(http)) if closed else None
        own = access.tenant_id if access else None
        bases = [] if closed and own is None else await asyncio.to_thread(_knowledge_bases, deployment, own)
        draining = deployment.in_flight.draining
        health = Health(
            status="draining" if draining else "ok",
            rewriter=bool(deployment.rewriters),
            language_model=deployment.language_model.id if deployment.language_model else None,
            knowledge_bases=bases,
        )
        return Response(health.model_dump_json(), 503 if draining else 200, media_type="application/json")

    @app.get(
        "/metrics",
        tags=["operation"],
        summary="Metrics in Prometheus's text format",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            403: {"model": Problem, "description": "with access keys: asked from another machine"},
        },
    )
    async def metrics(http: Request) -> Response:
        """They name every tenant: with access keys, only this machine may read them."""
        if gate.is_closed() and (http.client is None or http.client.host not in ("127.0.0.1", "::1")):
            raise HTTPException(403, "metrics are for this machine only")
        body = await asyncio.to_thread(deployment.metrics.render)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        headers = {"Content-Security-Policy": PAGE_POLICY}
        return FileResponse(PAGE / "index.html", media_type="text/html; charset=utf-8", headers=headers)

    app.mount("/page", StaticFiles(directory=PAGE))


def _knowledge_bases(deployment: Deployment, tenant_id: str | None) -> list[KnowledgeBaseHealth]:
    return [_health(deployment, kb) for kb in deployment.catalogue.knowledge_bases(tenant_id)]


def _health(deployment: Deployment, kb: KnowledgeBase) -> KnowledgeBaseHealth:
    version = VersionInfo.of(deployment.catalogue, kb)
    reranker = deployment.rerankers.in_use(kb.tenant_id)
    health = KnowledgeBaseHealth(
        tenant_id=kb.tenant_id,
        kb_name=kb.name,
        documents=kb.documents,
        passages=kb.passages,
        questions=kb.questions,
        revision=kb.revision,
        reranker=reranker.id if reranker else LexicalReranker.id,
        reranker_problem=deployment.rerankers.problem(kb.tenant_id),
    )
    if version is None:
        return health
    return health.model_copy(
        update={
            "version": version.id,
            "embedder_id": version.embedder_id,
            "embedder_dimension": version.embedder_dimension,
            "tokenizer_id": version.tokenizer_id,
            "store_id": version.engine_id,
            "versions": version.versions,
            "created_at": version.created_at,
            "fusion": deployment.retriever.fusion_name(kb, reranker),
        }
    )
