"""The HTTP service: `POST /api/chat/general_rag` (spec 1's contract) and `GET /healthz`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from rag.contracts import GeneralRagRequest, GeneralRagResponse
from rag.ingest import IngestError
from rag.rewriting import Rewriter, choose_rewrite
from rag.search import KnowledgeBase


def create_app(knowledge_bases: Sequence[KnowledgeBase], rewriter: Rewriter | None = None) -> FastAPI:
    """The service over these knowledge bases; it closes them and the rewriter when it shuts down.

    Raises:
        IngestError: two of them are the same tenant's under the same name.
    """
    by_name: dict[tuple[str, str], KnowledgeBase] = {}
    for knowledge_base in knowledge_bases:
        name = (knowledge_base.manifest.tenant_id, knowledge_base.manifest.kb_name)
        if name in by_name:
            raise IngestError(f"{'/'.join(name)}: given by two indexes")
        by_name[name] = knowledge_base
    tenants = {tenant_id for tenant_id, _ in by_name}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if rewriter is not None:
            await rewriter.aclose()
        for knowledge_base in knowledge_bases:
            knowledge_base.close()

    app = FastAPI(title="Reference RAG service", lifespan=lifespan)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if part != "body") or "body"
        return JSONResponse({"detail": f"{field}: {problem['msg']}"}, status_code=422)

    @app.post("/api/chat/general_rag", responses={200: {"model": GeneralRagResponse}})
    async def general_rag(request: GeneralRagRequest) -> Response:
        """Passages for a query, in the order of the rewritten query's fused rank."""
        knowledge_base = by_name.get((request.tenant_id, request.kb_name))
        if knowledge_base is None:
            unknown = f"tenant {request.tenant_id!r}"
            if request.tenant_id in tenants:
                unknown = f"knowledge base {request.kb_name!r} of {unknown}"
            raise HTTPException(404, f"unknown {unknown}")
        rewrite = await choose_rewrite(request, rewriter)
        # Called on the event loop: about a millisecond, less than handing it to a thread and back costs here.
        hits = knowledge_base.search(
            request.query, request.context, rewrite.text, request.top_k, request.score_threshold
        )
        data = {
            "user_profile": request.user_profile,
            "history_summary": request.history_summary,
            "rewritten_query": rewrite.text,
            "recall": [
                {
                    "content": hit.content,
                    "score": hit.score,
                    "reranker_score": hit.reranker_score,
                    "doc_id": hit.doc_id,
                }
                for hit in hits
            ],
            "rewrite_source": rewrite.source,
            "rewrite_failure": rewrite.failure,
            "reranker": knowledge_base.reranker.id,
        }
        # Straight to bytes: validating 100 hits a second time would cost more than finding them.
        return Response(to_json({"data": data}), media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> dict[str, object]:
        return {
            "status": "ok",
            "rewriter": rewriter is not None,
            "knowledge_bases": [
                {**knowledge_base.manifest.model_dump(), "reranker": knowledge_base.reranker.id}
                for knowledge_base in knowledge_bases
            ],
        }

    return app
