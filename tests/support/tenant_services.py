"""A tenant's two services on one loopback port: retrieval, and the deployed rewriter."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI

from tests.support.asgi_server import AsgiServer

PATIENCE = {"attempts": 1, "timeout": 20}


class LoopbackServices:
    """`answer` makes the answer to a request of its path ("rewrite" or "retrieve"), body and number, from 1.

    `requests` are (path, body), in order.
    """

    def __init__(self, answer: Callable[[str, dict[str, Any], int], Any]) -> None:
        self._answer, self._lock = answer, threading.Lock()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        app = FastAPI()
        app.post("/api/rewrite_query")(self._rewrite)
        app.post("/api/chat/general_rag")(self._retrieve)
        self._server = AsgiServer(app, timeout_graceful_shutdown=1)
        self.url = self._server.url

    @property
    def asked(self) -> Counter[str]:
        """Requests by what they ask, whole."""
        return Counter(f"{path} {json.dumps(body, ensure_ascii=False)}" for path, body in self.requests)

    def close(self) -> None:
        self._server.close()

    # Handlers that are not async get a thread each: one that waits holds up no other.
    def _rewrite(self, body: dict) -> Any:
        return self._answer("rewrite", body, self._number("rewrite", body))

    def _retrieve(self, body: dict) -> Any:
        return self._answer("retrieve", body, self._number("retrieve", body))

    def _number(self, path: str, body: dict[str, Any]) -> int:
        with self._lock:
            self.requests.append((path, body))
            return len(self.requests)


def write_tenant(path: Path, services: LoopbackServices, **more: Any) -> Path:
    """Write the YAML of the tenant fivedoctors that these services are of."""
    tenant = {
        "tenant_id": "fivedoctors",
        "short_id": "fivedr",
        "system_prompt": "你是查询优化专家。",
        "rag": {"url": services.url, "kb_name": "kb", **PATIENCE},
        "baseline": {"url": services.url, **PATIENCE},
        **more,
    }
    path.write_text(yaml.safe_dump(tenant, allow_unicode=True), encoding="utf-8")
    return path
