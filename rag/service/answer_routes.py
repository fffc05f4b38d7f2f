"""Answering: `POST /ask`, as JSON or as server-sent events."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from plain_text.marks import bound_marks
from plain_text.thinking import without_thinking
from rag.models.failure import BrokenOff, ModelFailure
from rag.models.language_model import UNKNOWN
from rag.retrieval.search_request import SearchRequest
from rag.service.contracts import Answered, Asked, AskRequest, AskResponse, Context
from rag.service.deployment import Deployment
from rag.service.problems import problems
from rag.service.unnamed_json import UnnamedJson

NO_MODEL = "no language model is configured"
# After NFKC: [1], [1, 2], [1-3], [1;2], [^1], 【1】, 【1†source】, 【4:0†source】, [材料1].
# No two patterns beside each other may take the same characters: that would take quadratic time.
_NUMBER = r"(?:(?:\^|材料|来源|编号|资料|文档|参考)\s*)?\d{1,3}"
_CITED = re.compile(
    rf"[\[【〔]\s*({_NUMBER}(?:\s*[-‐–—~〜至到,、;/和与&]\s*{_NUMBER})*)(?::\d{{1,9}})?\s*(?:†[^\]】〕]{{0,200}})?[\]】〕]"
)
_RANGE = re.compile(r"(\d+)(?:\s*[-‐–—~〜至到]\s*\D{0,2}(\d+))?")


def answer_routes(deployment: Deployment) -> APIRouter:
    router = APIRouter(tags=["answer"], dependencies=[Depends(deployment.gate)], route_class=UnnamedJson)
    event_stream = {"text/event-stream": {"schema": _EVENT_SCHEMA, "example": _EXAMPLE_EVENTS}}

    @router.post(
        "/ask",
        summary="An answer from the knowledge base, with citations",
        response_model=AskResponse,
        responses={200: {"content": event_stream}, **problems(404)},
    )
    async def ask(body: AskRequest, http: Request) -> AskResponse | StreamingResponse:
        """`未知` when nothing was found or the material holds no answer. A language model that fails, or is not
        configured, is no answer: then `answer_failure` says why.

        With `stream`: an event `contexts`, an event `token` for each piece of the answer, and an event `done` with the
        whole, which counts. An answer that breaks off comes as far as it goes, and `answer_failure` says so."""
        tenant_id = await deployment.admit(http, body.tenant_id)
        request = SearchRequest(
            query=body.query,
            tenant_id=tenant_id,
            top_k=body.top_k,
            history=body.history,
            user_profile=body.user_profile,
            history_summary=body.history_summary,
            context=body.context,
            channels=body.channels,
        )
        found = await deployment.retrieve(http, deployment.find(http, tenant_id, body.kb_name), request)
        asked = Asked(
            query=body.query,
            rewritten_query=found.rewrite.text,
            pseudo_doc=found.pseudo_document,
            contexts=[hit.content for hit in found.hits],
            passages=[
                Context(n=n, doc_id=hit.doc_id, content=hit.content, score=hit.score, reranker_score=hit.reranker_score)
                for n, hit in enumerate(found.hits, start=1)
            ],
            channels=found.channels,
        )
        if body.stream:
            return StreamingResponse(
                _events(deployment, asked, body.context),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        return AskResponse(**asked.model_dump(), **(await _answer(deployment, asked, body.context)).model_dump())

    return router


async def _answer(deployment: Deployment, asked: Asked, context: str) -> Answered:
    if not asked.contexts:
        return _answered(UNKNOWN, asked)
    if deployment.language_model is None:
        return _answered("", asked, NO_MODEL)
    started = time.perf_counter()
    try:
        answer = await deployment.language_model.answer(asked.query, context, _material(asked))
    except BrokenOff as failure:
        return _answered(failure.text, asked, str(failure))
    except ModelFailure as failure:
        return _answered("", asked, str(failure))
    finally:
        deployment.metrics.observe_stage("answer", time.perf_counter() - started)
    return _answered(answer, asked)


async def _events(deployment: Deployment, asked: Asked, context: str) -> AsyncIterator[bytes]:
    yield _event("contexts", asked)
    if not asked.contexts or deployment.language_model is None:
        answered = await _answer(deployment, asked, context)
        if answered.answer:
            yield _event("token", Token(text=answered.answer))
        yield _event("done", answered)
        return
    started = time.perf_counter()
    pieces: list[str] = []
    failed = ""
    try:
        async for piece in deployment.language_model.stream_answer(asked.query, context, _material(asked)):
            pieces.append(piece)
            yield _event("token", Token(text=piece))
    except ModelFailure as failure:
        failed = str(failure)
    deployment.metrics.observe_stage("answer", time.perf_counter() - started)
    # Thinking that nothing opened may have been given before its end showed what it was.
    yield _event("done", _answered(without_thinking("".join(pieces)), asked, failed))


class Token(BaseModel):
    """A piece of the answer; the event `token` of a stream."""

    text: str


def _answered(answer: str, asked: Asked, failure: str = "") -> Answered:
    return Answered(answer=answer, citations=cited(answer, len(asked.contexts)), answer_failure=failure)


def cited(answer: str, contexts: int) -> list[int]:
    """Return the numbers in brackets that are contexts', each once, in the order of their first mention; of a range
    all."""
    numbers: dict[int, None] = {}
    for group in _CITED.findall(unicodedata.normalize("NFKC", bound_marks(answer))):
        for first, last in _RANGE.findall(group):
            numbers |= dict.fromkeys(range(int(first), int(last or first) + 1))
    return [number for number in numbers if 1 <= number <= contexts]


def _material(asked: Asked) -> Sequence[str]:
    return asked.contexts


def _event(name: str, data: BaseModel) -> bytes:
    return format_sse_event(event=name, data_str=data.model_dump_json())


_EVENT_SCHEMA = {  # of each event
    "type": "object",
    "properties": {"event": {"enum": ["contexts", "token", "done"]}, "data": {"type": "string"}},
    "required": ["event", "data"],
}
_EXAMPLE_EVENTS = (
    'event: contexts\ndata: {"query": "鱼油怎么吃", "contexts": ["鱼油：每日两粒。"]}\n\n'
    'event: token\ndata: {"text": "每日两粒[1]"}\n\n'
    'event: done\ndata: {"answer": "每日两粒[1]", "citations": [1], "answer_failure": ""}\n\n'
)
