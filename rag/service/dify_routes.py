"""Dify's external knowledge API: `POST /retrieval`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic_core import to_json

from rag.catalogue.access_keys import Access
from rag.documents.tokenizer import has_tokens
from rag.retrieval.search_request import Hit, SearchRequest
from rag.service.access import DifyGate
from rag.service.deployment import Deployment
from rag.service.dify_contracts import (
    LONGEST_QUERY,
    NO_KNOWLEDGE,
    DifyFailure,
    DifyProblem,
    DifyRequest,
    DifyResponse,
)
from rag.service.read_request import KeyFirst
from rag.service.request_log import record_of

MOST_HITS = 200
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": DifyProblem, "description": meaning}
    for status, meaning in {
        400: "a field, or a metadata condition that is not supported",
        403: "1001: no Bearer key; 1002: none in use",
        404: "2001: no such knowledge base",
        408: "the body came too slowly",
        413: "the body is too long",
        429: "the tenant's requests of this minute are used up",
        503: "a model or engine that is needed cannot be reached or has changed",
    }.items()
}


def dify_routes(deployment: Deployment) -> APIRouter:
    router = APIRouter(tags=["search"], dependencies=[Depends(DifyGate(deployment.gate))], route_class=KeyFirst)

    @router.post(
        "/retrieval",
        summary="Dify's external knowledge API",
        responses={200: {"model": DifyResponse}, **_PROBLEMS},
    )
    async def retrieval(
        body: DifyRequest,
        http: Request,
    ) -> Response:
        """A metadata condition filters the 200 best passages."""
        condition = body.metadata_condition
        if condition is not None and (problem := condition.unsupported()):
            raise DifyFailure(400, 400, problem)
        tenant_id, kb_name = _knowledge(body.knowledge_id, record_of(http.scope).access)
        try:
            tenant_id = await deployment.admit(http, tenant_id)
            kb = deployment.find(http, tenant_id, kb_name)
        except HTTPException as error:
            if error.status_code == 429:
                raise
            raise DifyFailure(404, NO_KNOWLEDGE, "the knowledge base does not exist") from None
        setting, query = body.retrieval_setting, (body.query or "").strip()[:LONGEST_QUERY]
        if not has_tokens(query):  # any passage would be as near as any other
            return Response(to_json({"records": []}), media_type="application/json")
        filtered = condition is not None and bool(condition.asked)
        found = await deployment.retrieve(
            http,
            kb,
            SearchRequest(
                query=query,
                tenant_id=tenant_id,
                top_k=MOST_HITS if filtered else setting.top_k,
                score_threshold=setting.score_threshold or 0.0,
            ),
        )
        hits = [hit for hit in found.hits if condition is None or condition.holds(_fields(hit, kb.name))]
        records = [
            {
                "content": hit.content,
                "score": hit.reranker_score,
                "title": hit.document,
                "metadata": _fields(hit, kb.name) | {"fused_score": hit.score},
            }
            for hit in hits[: setting.top_k]
        ]
        return Response(to_json({"records": records}), media_type="application/json")

    return router


def _fields(hit: Hit, kb_name: str) -> dict[str, str]:
    """Return what a condition can ask for; Dify calls a document's name by different names."""
    names = dict.fromkeys(("document_id", "document", "document_name", "title"), hit.document)
    return names | {"doc_id": hit.doc_id, "kb_name": kb_name}


def _knowledge(knowledge_id: str, access: Access | None) -> tuple[str | None, str]:
    """Return tenant and knowledge base of `tenant/knowledge base`, or of the knowledge base alone."""
    tenant_id, slash, name = knowledge_id.partition("/")
    if slash:
        return tenant_id, name
    return (access.tenant_id if access else None), knowledge_id
