"""Searching: the training contract's `POST /api/chat/general_rag`, and what people thought of hits."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic_core import to_json

from rag.catalogue.clicks import Click
from rag.catalogue.holdings import LimitReached
from rag.retrieval.search_request import Expansion, Hit, SearchRequest, searched_kinds
from rag.service.contracts import FeedbackRequest, GeneralRagRequest, GeneralRagResponse
from rag.service.deployment import Deployment
from rag.service.problems import problems
from rag.service.read_request import KeyFirst


def search_routes(deployment: Deployment) -> APIRouter:
    router = APIRouter(tags=["search"], dependencies=[Depends(deployment.gate)], route_class=KeyFirst)

    @router.post(
        "/api/chat/general_rag",
        summary="Passages for a query, in the order of their fused score",
        responses={200: {"model": GeneralRagResponse}, **problems(404)},
    )
    @router.post(
        "/search",
        summary="The same, under a short name",
        responses={200: {"model": GeneralRagResponse}, **problems(404)},
    )
    async def general_rag(body: GeneralRagRequest, http: Request) -> Response:
        """With a cross-encoder on, in its order. A channel that cannot work falls back, and `channels` says so."""
        tenant_id = await deployment.admit(http, body.tenant_id)
        expansions = tuple(Expansion(line.kind, line.text) for line in body.expansions)
        retrieval = await deployment.retrieve(
            http,
            deployment.find(http, tenant_id, body.kb_name),
            SearchRequest(
                query=body.query,
                tenant_id=tenant_id,
                top_k=body.top_k,
                score_threshold=body.score_threshold,
                rewritten_query=body.rewritten_query,
                keyword_query=body.keyword_query,
                expansions=expansions,
                history=body.history,
                user_profile=body.user_profile,
                history_summary=body.history_summary,
                context=body.context,
                channels=body.channels,
                debug=body.debug,
            ),
        )
        data = {
            "user_profile": body.user_profile,
            "history_summary": body.history_summary,
            "rewritten_query": retrieval.rewrite.text,
            "recall": [_recalled(hit, body.debug) for hit in retrieval.hits],
            "rewrite_source": retrieval.rewrite.source,
            "rewrite_failure": retrieval.rewrite.failure,
            "reranker": retrieval.reranker,
            "fusion": retrieval.fusion,
            "channels": retrieval.channels,
        }
        if body.debug:
            data["pseudo_document"] = retrieval.pseudo_document
        # Only where they were asked for: other answers stay as they are, byte by byte.
        if retrieval.rewrite.keyword_query is not None:
            data["keyword_query"] = retrieval.rewrite.keyword_query
        if expansions:
            data["expansions"] = searched_kinds(expansions, retrieval.channels)
        # Straight to bytes: validating 100 hits a second time would cost more than finding them.
        return Response(to_json({"data": data}), media_type="application/json")

    @router.post("/feedback", summary="What a person did with a hit", status_code=204, responses=problems(404, 409))
    async def feedback(body: FeedbackRequest, http: Request) -> Response:
        """Kept for the weekly learning; a passage that is not in the knowledge base (any more) is refused."""
        tenant_id = await deployment.admit(http, body.tenant_id)
        kb = deployment.find(http, tenant_id, body.kb_name)
        if deployment.catalogue.passage(kb.id, body.doc_id) is None:
            raise HTTPException(404, f"unknown passage {body.doc_id!r} of knowledge base {kb.name!r}")
        click = Click(
            kb_id=kb.id,
            query=body.query,
            rewritten_query=body.rewritten_query,
            passage_key=body.doc_id,
            clicked=body.clicked,
            position=body.position,
            request_id=body.request_id,
        )
        most = deployment.settings.tenant(tenant_id).max_clicks
        try:
            await deployment.writer.write(tenant_id, deployment.clicks.record, click, most)
        except LimitReached as error:
            raise HTTPException(409, str(error)) from None
        return Response(status_code=204)

    return router


def _recalled(hit: Hit, debug: bool) -> dict[str, object]:
    recalled: dict[str, object] = {
        "content": hit.content,
        "score": hit.score,
        "reranker_score": hit.reranker_score,
        "doc_id": hit.doc_id,
    }
    if debug:
        recalled["channels"] = {name: {"rank": at.rank, "score": at.score} for name, at in hit.channels.items()}
        recalled["matched_question"] = hit.matched_question
    return recalled
