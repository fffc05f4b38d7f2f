"""The HTTP service: the deployed rewriter's route, events, health, metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, StringConstraints, ValidationError, model_validator
from starlette.middleware.trustedhost import TrustedHostMiddleware

from export.serving.backend import BackendFailed, Launch, vllm_command
from export.serving.contract import RewriteRequest
from export.serving.fingerprint import BadFingerprint
from export.serving.service import Service, load_tenants
from export.serving.settings import ServingSettings
from guard.web.body_limits import BodyLimits
from guard.web.draining import Draining
from guard.web.origins import LOOPBACK, Origins
from reward.records.call import ServiceFailure
from reward.records.files import BadInput
from reward.records.rewrite_pair import retrieval_fields

_LOG = logging.getLogger("export.serving")
MAX_BODY_BYTES = 200_000
BODY_SECONDS = 10.0
STOP_POLL_SECONDS = 0.2
Event = Literal["click", "conversion"]
_ID = r"^[A-Za-z0-9._-]{1,64}$"
_M = TypeVar("_M", bound=BaseModel)


class Outcome(BaseModel):
    """What became of an answer. It is joined with the answer by the request, or by the user or session."""

    event: Event
    tenant_id: Annotated[str, StringConstraints(max_length=64)] = ""
    request_id: Annotated[str, StringConstraints(pattern=_ID)] | None = None
    user_id: Annotated[str, StringConstraints(max_length=200)] = ""
    session_id: Annotated[str, StringConstraints(max_length=200)] = ""
    doc_id: Annotated[str, StringConstraints(max_length=500)] = ""

    @model_validator(mode="after")
    def _named(self) -> Outcome:
        if not (self.request_id or self.user_id or self.session_id):
            raise ValueError("request_id, user_id or session_id: one of them says whose event it is")
        return self


def create_app(
    settings: ServingSettings,
    *,
    api_key: str = "",
    allowed_hosts: Iterable[str] = (),
    launch: Launch = vllm_command,
    ready: Callable[[], None] = lambda: None,
    failed: Callable[[str], None] = lambda problem: None,
    stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Return the service; its model servers start with it and end with it.

    Args:
        api_key: that callers must bring as `Authorization: Bearer …`; "" asks for none.
        allowed_hosts: names beside localhost that a service without a key answers to.
        ready: called when every model server answers.
        failed: gets the line that says why one does not; the app does not start then.
        stopping: whether a start that is under way is to be given up.

    Raises:
        BadInput: a tenant or a rewriter cannot be used.
    """
    service = Service(settings, load_tenants(settings), launch)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(service.aclose)
            try:
                await _unless(stopping, service.start())
            except (BadInput, BackendFailed, BadFingerprint) as problem:
                failed(str(problem))
                raise
            service.in_flight.drain_on_signals()
            ready()
            yield

    app = FastAPI(title="Query rewriter", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_routes(app, service, api_key)
    _add_operator_routes(app, service)
    _explain_problems(app)
    app.add_middleware(BodyLimits, seconds=BODY_SECONDS, max_json_bytes=MAX_BODY_BYTES)
    app.add_middleware(Draining, in_flight=service.in_flight)
    app.add_middleware(Origins)
    hosts = ["*"] if api_key else [*LOOPBACK, *allowed_hosts]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return app


async def _unless(stopping: Callable[[], bool], start: Coroutine[Any, Any, None]) -> None:
    """Wait for `start`.

    Raises:
        BackendFailed: it was given up.
    """
    starting = asyncio.create_task(start)
    while not starting.done():
        await asyncio.wait({starting}, timeout=STOP_POLL_SECONDS)
        if stopping() and not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            raise BackendFailed("stopped while the models were starting")
    await starting


def _add_routes(app: FastAPI, service: Service, api_key: str) -> None:
    def admit(http: Request) -> None:
        given = http.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if api_key and not hmac.compare_digest(given, api_key.encode()):
            raise HTTPException(401, "the access key is missing or wrong", {"WWW-Authenticate": "Bearer"})

    async def read(http: Request) -> dict[str, Any]:
        try:
            body = await http.json()
        except (ValueError, RecursionError):
            raise HTTPException(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise HTTPException(422, "body: expected an object")
        return body

    @app.post("/api/rewrite_query", summary="Rewrite a query for retrieval")
    async def rewrite_query(http: Request) -> Response:
        """The answer is always a query to retrieve with; `X-Rewrite-Source` says whether it is the original one."""
        admit(http)
        request = _validated(RewriteRequest, await read(http))
        request_id = _request_id(http)
        busy = service.in_flight.requests > service.settings.max_in_flight
        answer = await service.route_of(request.tenant_id).answer(request, request_id, busy=busy)
        headers = {
            "X-Request-Id": request_id,
            "X-Rewrite-Arm": answer.arm,
            "X-Rewrite-Source": answer.source,
            **({"X-Rewrite-Failure": answer.failure} if answer.failure else {}),
        }
        return _json(retrieval_fields(answer.text), headers)

    @app.post("/api/chat/general_rag", summary="Retrieve with the rewrite; interleaved while such a test runs")
    async def general_rag(http: Request) -> Response:
        admit(http)
        body = await read(http)
        request = _validated(RewriteRequest, body)
        request_id = _request_id(http)
        route = service.route_of(request.tenant_id)
        found = await service.retrievals[route.tenant.tenant_id].retrieve(request, body, request_id)
        if isinstance(found, ServiceFailure):
            raise HTTPException(502, f"the retrieval service failed: {found.kind.value}")
        return _json(found, {"X-Request-Id": request_id})

    @app.post("/api/outcome", status_code=204, summary="Report a click or a conversion")
    async def outcome(http: Request) -> Response:
        admit(http)
        event = _validated(Outcome, await read(http))
        tenant_id = service.route_of(event.tenant_id).tenant.tenant_id
        service.metrics.count_event(tenant_id, event.event)
        service.log.write(
            "event",
            event=event.event,
            tenant_id=tenant_id,
            request_id=event.request_id or "",
            unit=service.log.unit(event.user_id or event.session_id),
            doc_id=event.doc_id,
        )
        return Response(status_code=204)


def _add_operator_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Whether the service takes requests, and the state of its models")
    async def healthz() -> Response:
        """`degraded`: a model server is down and the original query is the answer; requests are still taken."""
        models = [
            {
                "tenant_id": tenant_id,
                "rewriter": slot.name,
                "ready": slot.ready,
                "version": slot.version,
                "restarts": slot.restarts,
                "refused_swap": slot.problem,
            }
            for tenant_id, slot in service.slots
        ]
        draining = service.in_flight.draining
        status = "draining" if draining else "ok" if all(model["ready"] for model in models) else "degraded"
        return JSONResponse({"status": status, "models": models}, 503 if draining else 200)

    @app.get("/metrics", summary="Metrics in Prometheus's text format", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _explain_problems(app: FastAPI) -> None:
    """Make every refusal an answer of one line."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "body"
        return JSONResponse({"detail": f"{field}: {problem['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        _LOG.error("failed", exc_info=error)
        return JSONResponse({"detail": "internal error, logged"}, 500)


def _validated(model: type[_M], body: dict[str, Any]) -> _M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_input=False, include_url=False)) from None


def _request_id(http: Request) -> str:
    """Return the caller's request id when it is short and harmless, else a new one."""
    given = http.headers.get("x-request-id", "")
    if 0 < len(given) <= 64 and given.isascii() and all(c.isalnum() or c in "._-" for c in given):
        return given
    return uuid.uuid4().hex


def _json(value: dict[str, Any], headers: Mapping[str, str]) -> Response:
    # A lone surrogate, as JSON may hold it, goes back as its escape.
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(body, media_type="application/json", headers=headers)
