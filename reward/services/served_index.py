"""Client of `GET {url}/healthz`: what identifies the knowledge base and the index behind a retrieval service."""

from __future__ import annotations

import json
from typing import Any

import httpx

from reward.services.http_calls import read_api_key
from reward.settings.services import RagSettings

_SECONDS = 5.0
_INDEX = (
    *("version", "created_at", "revision", "documents", "passages", "questions"),
    *("embedder_id", "tokenizer_id", "store_id", "fusion", "reranker"),
)


def read_index(rag: RagSettings, tenant_id: str) -> dict[str, Any] | None:
    """Return what this project's service says of the knowledge base at `/healthz`, None where a service is silent.

    A write changes `revision`, a rebuild `version` and `created_at`.
    """
    headers = {"Authorization": f"Bearer {read_api_key(rag.api_key_env, rag.url)}"} if rag.api_key_env else {}
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=False) as http:
            health = json.loads(http.get(rag.url.rstrip("/") + "/healthz", headers=headers).content)
        bases = health["knowledge_bases"]
        own = next(kb for kb in bases if kb["tenant_id"] == tenant_id and kb["kb_name"] == rag.kb_name)
        return {key: own.get(key) for key in _INDEX} if own["version"] is not None else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None
