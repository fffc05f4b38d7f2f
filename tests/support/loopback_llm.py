"""A real OpenAI-compatible server on loopback whose answers a test scripts: chat (whole and streamed), embeddings,
rerank; and a query rewriter's `/api/rewrite_query` beside /v1.

    with loopback_llm(lambda body: "鱼油每日一粒。") as url:          # url ends in /v1
    with loopback_llm(lambda body: Fault(status=500)) as url:

`answer` gets the body of a chat request and returns its text, or a fault. Embeddings and rerank scores are computed
from the texts (`embed_text`, `overlap`), unless `embed` or `rerank` says otherwise. `url.requests` holds every body
(with its `path`), `url.headers` the headers of each, `url.most_under_way` how many were answered at one time.
"""

import asyncio
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from tests.support.asgi_server import AsgiServer

EMBEDDING_DIMENSION = 16


@dataclass(frozen=True)
class Fault:
    """`delay` seconds pass first. Then: `body` as it stands with `status`, or `text` as an answer; `cut`: a stream
    whose connection breaks after half of `text`; `empty_choices`: a well-formed answer without a choice. `ended`: the
    finish reason; None: a stream ends without a word."""

    delay: float = 0.0
    status: int = 200
    body: str | None = None
    text: str = ""
    cut: bool = False
    empty_choices: bool = False
    piece_delay: float = 0.0
    ended: str | None = "stop"


class LlmUrl(str):
    """The server's URL ending in /v1, with what it was asked."""

    requests: list[dict]
    headers: list[dict]
    most_under_way: int


def embed_text(text: str) -> list[float]:
    """Counts of hashed characters: the same text has the same vector, texts sharing characters are near."""
    vector = [0.0] * EMBEDDING_DIMENSION
    for character in text:
        vector[zlib.crc32(character.encode()) % EMBEDDING_DIMENSION] += 1
    return vector


def overlap(query: str, document: str) -> float:
    """Share of the document's distinct characters that the query holds."""
    characters = set(document)
    return len(characters & set(query)) / max(len(characters), 1)


@contextmanager
def loopback_llm(
    answer: Callable[[dict], str | Fault] = lambda body: "好的。",
    *,
    embed: Callable[[dict], object] | None = None,
    rerank: Callable[[dict], object] | None = None,
    rewrite: Callable[[dict], object] = lambda body: {"rewritten_query": body["query"]},
) -> Iterator[LlmUrl]:
    """`embed`, `rerank`, `rewrite`: body to the whole JSON answer, or a Fault."""
    app = FastAPI()
    requests: list[dict] = []
    headers: list[dict] = []
    under_way = most = 0

    async def take(request: Request, script: Callable[[dict], object]) -> tuple[dict, object]:
        nonlocal under_way, most
        body = await request.json()
        requests.append(body | {"path": request.url.path})
        headers.append(dict(request.headers))
        under_way += 1
        most = server_url.most_under_way = max(most, under_way)
        try:
            scripted = await asyncio.to_thread(script, body)
            if isinstance(scripted, Fault) and scripted.delay:
                await asyncio.sleep(scripted.delay)
        finally:
            under_way -= 1
        return body, scripted

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        body, scripted = await take(request, answer)
        fault = scripted if isinstance(scripted, Fault) else Fault(text=str(scripted))
        if fault.body is not None or fault.status != 200:
            return raw(fault)
        if body.get("stream"):
            return StreamingResponse(stream(fault), media_type="text/event-stream")
        message = {"role": "assistant", "content": fault.text}
        choices = [] if fault.empty_choices else [{"index": 0, "message": message, "finish_reason": fault.ended}]
        return {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": choices}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request):
        _, scripted = await take(request, embed or embed_all)
        return raw(scripted) if isinstance(scripted, Fault) else scripted

    @app.post("/v1/rerank")
    async def rerank_documents(request: Request):
        _, scripted = await take(request, rerank or rerank_all)
        return raw(scripted) if isinstance(scripted, Fault) else scripted

    @app.post("/api/rewrite_query")
    async def rewrite_query(request: Request):
        _, scripted = await take(request, rewrite)
        return raw(scripted) if isinstance(scripted, Fault) else scripted

    with AsgiServer(app, log_level="critical", timeout_graceful_shutdown=0) as server:
        server_url = LlmUrl(f"{server.url}/v1")
        server_url.requests, server_url.headers, server_url.most_under_way = requests, headers, 0
        yield server_url


def raw(fault: Fault) -> Response:
    body = fault.body if fault.body is not None else json.dumps({"error": {"message": "scripted fault"}})
    return Response(body, fault.status, media_type="application/json")


async def stream(fault: Fault):
    """Server-sent events of two characters each, as OpenAI sends them."""
    half = len(fault.text) // 2
    for start in range(0, half if fault.cut else len(fault.text), 2):
        end = min(start + 2, half) if fault.cut else start + 2
        choice = {"index": 0, "delta": {"content": fault.text[start:end]}, "finish_reason": None}
        choices = [] if fault.empty_choices else [choice]
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        await asyncio.sleep(fault.piece_delay)
    if fault.cut:
        raise ConnectionResetError("scripted fault: the stream breaks off")
    if fault.ended is None:
        return
    if not fault.empty_choices:
        last = {"index": 0, "delta": {}, "finish_reason": fault.ended}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [last]}
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def embed_all(body: dict) -> dict:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    rows = [{"object": "embedding", "index": i, "embedding": embed_text(text)} for i, text in enumerate(texts)]
    return {"object": "list", "data": rows, "model": body["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


def rerank_all(body: dict) -> dict:
    scores = [overlap(body["query"], document) for document in body["documents"]]
    best = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.get("top_n", len(scores))]
    return {"model": body["model"], "results": [{"index": i, "relevance_score": scores[i]} for i in best]}
