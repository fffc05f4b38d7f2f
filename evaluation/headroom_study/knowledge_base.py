"""The passages of a knowledge base: from this project's service over HTTP, or from a folder in BEIR layout."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from reward.records.files import BadInput, read_jsonl
from reward.services.http_calls import read_api_key
from reward.settings.recipe import TenantSettings

CORPUS = "corpus.jsonl"
_LONGEST_TITLE = 80  # characters of a first line that is a title
_PAGE = 1000
_OF_VERSION = ("id", "embedder_id", "embedder_dimension", "tokenizer_id", "engine_id", "created_at")
_SECONDS = 30.0


class Passage(NamedTuple):
    """`questions` are those that people wrote for it."""

    doc_id: str
    title: str
    text: str
    questions: tuple[str, ...] = ()


def describe(tenant: TenantSettings) -> dict[str, Any] | None:
    """Return what the service says of its knowledge base and index, without what changes while it stays the same; None
    where it is another service, or down."""
    try:
        with _client(tenant) as http:
            response = http.get(_path(tenant))
        described = response.json() if response.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
    if not isinstance(described, dict):
        return None
    version = described.get("version")
    known = {name: described.get(name) for name in ("revision", "documents", "passages", "questions")}
    return {
        **known,
        "version": {name: version.get(name) for name in _OF_VERSION} if isinstance(version, dict) else None,
    }


def served_passages(tenant: TenantSettings, most: int, seed: int) -> list[Passage]:
    """Return passages of documents drawn at random, until `most` are there; all of a document's.

    Raises:
        BadInput: the service does not answer, or gives its passages to nobody (then a folder is needed).
    """
    drawn: list[Passage] = []
    try:
        with _client(tenant) as http:
            names = list(_documents(http, tenant))
            random.Random(seed).shuffle(names)
            for name in names:
                if len(drawn) >= most:
                    break
                found = _get(http, f"{_path(tenant)}/documents/{quote(name)}")
                drawn += [_passage(one) for one in found.get("passages", []) if isinstance(one, dict)]
    except httpx.HTTPError as error:
        raise BadInput(f"{tenant.rag.url}: {error or type(error).__name__}") from None
    if not drawn:
        raise BadInput(f"{tenant.rag.url}: knowledge base {tenant.rag.kb_name!r} holds no passages")
    return drawn


def read_passages(folder: Path) -> list[Passage]:
    """Return the passages of a BEIR folder's `corpus.jsonl`.

    Raises:
        BadInput: there is none, or a row lacks `_id` or `text`.
    """
    path = folder / CORPUS if folder.is_dir() else folder
    passages = []
    for row, record in read_jsonl(path):
        key, text = record.get("_id"), record.get("text")
        if not isinstance(key, str | int) or not isinstance(text, str):
            raise BadInput(f"{path}: row {row}: _id or text is missing")
        questions = record.get("questions") or ()
        texts = tuple(q.strip() for q in questions if isinstance(q, str) and q.strip())
        passages.append(Passage(str(key), str(record.get("title") or "").strip(), text.strip(), texts))
    if not passages:
        raise BadInput(f"{path}: holds no passage")
    return passages


def _documents(http: httpx.Client, tenant: TenantSettings) -> Iterator[str]:
    after: str | None = ""
    while after is not None:
        page = _get(http, f"{_path(tenant)}/documents", {"after": after, "limit": _PAGE})
        names = [str(one["name"]) for one in page.get("documents", []) if isinstance(one, dict) and "name" in one]
        yield from names
        after = page.get("next") if names else None


def _get(http: httpx.Client, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Raises BadInput where the service has no such route, refuses, or answers something else."""
    response = http.get(path, params=dict(query or {}))
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code != 200 or not isinstance(answer, dict):
        raise BadInput(
            f"{response.url}: status {response.status_code}: the service does not give its passages; "
            "--kb names a folder in BEIR layout instead"
        )
    return answer


def _passage(one: Mapping[str, Any]) -> Passage:
    content = str(one.get("content") or "")
    first, _, rest = content.partition("\n")
    titled = bool(rest.strip()) and len(first) <= _LONGEST_TITLE
    return Passage(str(one.get("doc_id")), first.strip() if titled else "", (rest if titled else content).strip())


def _path(tenant: TenantSettings) -> str:
    return f"/api/tenants/{quote(tenant.tenant_id, safe='')}/knowledge_bases/{quote(tenant.rag.kb_name, safe='')}"


def _client(tenant: TenantSettings) -> httpx.Client:
    rag = tenant.rag
    key = read_api_key(rag.api_key_env, rag.url) if rag.api_key_env else ""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=rag.url.rstrip("/"), headers=headers, timeout=_SECONDS, trust_env=False)
