"""Names every request, times it, counts it, and writes one JSON line about it."""

from __future__ import annotations

import logging
import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guard.web.json_log import log_json
from guard.web.problem import send_problem
from rag.catalogue.access_keys import Access
from rag.service.metrics import Metrics

_LOG = logging.getLogger("rag.requests")
CLIENT_GONE = 499  # as nginx has it
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class RequestRecord:
    """What is known of the request being answered; routes fill it in. `access`: what its key allows, None where no keys
    are asked for. `tenant`: only one that exists, so that invented
    names make no metrics. `query`: only where the tenant lets it be logged."""

    request_id: str
    access: Access | None = None
    tenant: str = ""
    channels: dict[str, str] = field(default_factory=dict)
    query: str | None = None


def record_of(scope: Scope) -> RequestRecord:
    record: RequestRecord = scope["state"]["record"]
    return record


class RequestLog:
    """ASGI middleware, the outermost: also what answers when anything inside it fails."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope))
        scope.setdefault("state", {})["record"] = record
        started = time.perf_counter()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", record.request_id.encode())]
            await send(message)

        # On any failure inside, the client gets one line and the log one entry.
        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:  # in the middle of its body: there is nobody to answer
            status = CLIENT_GONE
        except Exception:
            _LOG.exception("failed", extra={"request_id": record.request_id})
            if status:  # too late to say anything
                raise
            await send_problem(send_named, 500, f"internal error, logged under request id {record.request_id}")
        finally:
            self._write(scope, record, status, time.perf_counter() - started)

    def _write(self, scope: Scope, record: RequestRecord, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.count_request(route, record.tenant, status, seconds)
        if _LOG.isEnabledFor(logging.INFO):
            facts: dict[str, object] = {
                "request_id": record.request_id,
                "method": scope["method"],
                "route": route,
                "tenant": record.tenant,
                "status": status,
                "ms": round(seconds * 1000, 2),
            }
            if record.channels:
                facts["channels"] = record.channels
            if record.query is not None:
                facts["query"] = record.query
            _LOG.info("request", extra=facts)


def log_requests(enabled: bool) -> None:
    """Log one JSON line a request to stderr, or none; failures are always written."""
    log_json(_LOG, logging.INFO if enabled else logging.ERROR)


def _request_id(scope: Scope) -> str:
    """Return the caller's request id when it is short and harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return uuid.uuid4().hex
