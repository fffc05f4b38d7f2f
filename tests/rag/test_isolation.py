"""No tenant gets at another's knowledge, whatever ids, names, filters, headers and keys its requests hold."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fastapi import FastAPI

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.clicks import Clicks
from rag.index.indexer import Indexer, open_engine
from rag.models.embedder import embedder_maker
from rag.retrieval.retriever import Retriever
from rag.retrieval.search_request import SearchRequest
from rag.service.app import create_app
from rag.settings import ServiceSettings
from tests.support.hostile_tenants import KB_NAMES, MARK, TENANTS, Attack, World, attack, create_world, secret
from tests.support.rag_server import RETRIEVER, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    return create_world(folder)


@pytest.fixture
def untouched(folder: Path, world: World) -> Iterator[None]:
    """Afterwards every knowledge base holds what it held, and only its own tenant's clicks."""
    before = read_all(folder)
    yield
    assert read_all(folder) == before
    catalogue = Catalogue(folder)
    for kb in catalogue.knowledge_bases():
        senders = {click.query for click in Clicks(catalogue).read(kb.id)}
        assert senders <= {f"from {TENANTS.index(kb.tenant_id)}"}
    catalogue.close()


def read_all(folder: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    catalogue = Catalogue(folder)
    held = {
        (kb.tenant_id, kb.name): [(passage.key, passage.content) for passage in catalogue.passages(kb.id)]
        for kb in catalogue.knowledge_bases()
    }
    catalogue.close()
    return held


async def call(app: FastAPI, request: Attack) -> tuple[int, str]:
    """Straight at the ASGI app: no client normalises the path."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": request.headers,
        "client": ("192.0.2.1", 1),
        "server": ("127.0.0.1", 80),
    }
    status, pieces = 0, []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        nonlocal status
        status = message.get("status", status)
        pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, b"".join(pieces).decode()


def check(request: Attack, status: int, answer: str, seen: Counter[str]) -> None:
    """No foreign mark; `seen` counts the answers by status, and those with marks of the asker's own."""
    owners = {int(tenant) for tenant, _ in MARK.findall(answer)}
    assert owners <= request.allowed, f"{request} was answered {answer[:500]}"
    assert status < 500, f"{request} was answered {answer[:500]}"
    seen[str(status)] += 1
    seen["own"] += bool(owners)


@pytest.mark.parametrize("requests", [None, pytest.param(50_000, marks=pytest.mark.slow)])
def test_no_request_gets_another_tenants_passages(
    folder: Path, world: World, untouched: None, full: bool, requests: int | None
) -> None:
    requests = requests or (8_000 if full else 2_000)
    rng, seen = random.Random(requests), Counter[str]()
    app = create_app(folder, ServiceSettings(retriever=RETRIEVER), keys_wanted=True)

    async def storm() -> None:
        async with app.router.lifespan_context(app):
            for _ in range(requests):
                request = attack(rng, world)
                check(request, *await call(app, request), seen)

    asyncio.run(storm())
    # The storm is one: requests that are the tenant's right are answered, the others are refused in every way.
    assert seen["own"] > requests / 10, seen
    assert all(seen[status] > requests / 200 for status in ("401", "403", "404", "422")), seen


def test_nor_does_one_over_http(folder: Path, world: World, untouched: None, full: bool) -> None:
    requests = 3_000 if full else 300
    rng, seen = random.Random(1), Counter[str]()
    with serving(folder, keys=True) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        for _ in range(requests):
            request = attack(rng, world)
            connection.putrequest(request.method, request.path, skip_accept_encoding=True)
            for name, value in request.headers:
                connection.putheader(name.decode(), value)
            connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body)
            response = connection.getresponse()
            check(request, response.status, response.read().decode(), seen)
        connection.close()
    assert seen["own"] > requests / 10, seen


def test_the_retriever_returns_hits_of_the_given_knowledge_base_only(folder: Path, world: World, full: bool) -> None:
    searches, rng = 2_000 if full else 200, random.Random(2)
    catalogue = Catalogue(folder)
    engine = open_engine(folder)
    retriever = Retriever(catalogue, Indexer(catalogue, engine, embedder_maker("hashing")))
    knowledge_bases = catalogue.knowledge_bases()

    async def search() -> None:
        for _ in range(searches):
            kb = rng.choice(knowledge_bases)
            victim = rng.randrange(len(TENANTS))
            found = await retriever.retrieve(kb, SearchRequest(secret(victim), TENANTS[victim], top_k=200, debug=True))
            owner = (TENANTS.index(kb.tenant_id), KB_NAMES.index(kb.name))
            assert len(found.hits) == 5
            for hit in found.hits:
                text = json.dumps([hit.content, hit.document, hit.matched_question])
                assert {(int(tenant), int(name)) for tenant, name in MARK.findall(text)} == {owner}

    asyncio.run(search())
    engine.close()
    catalogue.close()


def test_a_revoked_key_opens_nothing(folder: Path, world: World) -> None:
    app = create_app(folder, ServiceSettings(retriever=RETRIEVER), keys_wanted=True)
    body = json.dumps({"query": "鱼油", "score_threshold": 0}).encode()

    async def answers() -> list[int]:
        async with app.router.lifespan_context(app):
            statuses = []
            for key in (world.revoked[0], world.keys[0][0]):
                headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
                statuses.append((await call(app, Attack("POST", "/api/chat/general_rag", headers, body, set())))[0])
            return statuses

    assert asyncio.run(answers()) == [401, 200]
