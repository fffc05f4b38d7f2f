"""Errors: always one line, and described in the OpenAPI document."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from rag.documents.records import IngestError
from rag.index.engine import EngineUnavailable, SpaceLost
from rag.models.failure import ModelFailure
from rag.service.dify_contracts import DifyFailure
from rag.service.knowledge_writer import RebuildFailed

_DIFY = "/retrieval"
_EVERYWHERE = (400, 401, 403, 408, 413, 422, 429, 503)
_MEANINGS = {
    400: "the body cannot be read",
    401: "no access key, or none in use",
    403: "the key is another tenant's, or may search only",
    404: "not there",
    408: "the body came too slowly",
    409: "in conflict with what is there",
    413: "the body is too long",
    415: "of no kind that can be read",
    422: "a field, or a document, cannot be used as it is",
    429: "the tenant's requests of this minute are used up",
    503: "stopping; or a model or engine that is needed cannot be reached or has changed",
}


class Problem(BaseModel):
    """Every error: one line."""

    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these answers, and those that every route may give, for OpenAPI."""
    return {
        status: {"model": Problem, "description": _MEANINGS[status]} for status in sorted({*_EVERYWHERE, *statuses})
    }


def explain_problems(app: FastAPI) -> None:
    """Make every error an answer of one line."""

    @app.exception_handler(RequestValidationError)
    async def invalid(http: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"][1:]) or "body"  # the first says where in the request
        return _problem(http, 422, f"{field}: {problem['msg']}")

    @app.exception_handler(StarletteHTTPException)
    async def refused(http: Request, error: StarletteHTTPException) -> Response:
        return _problem(http, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(DifyFailure)
    async def refused_dify(_: Request, failure: DifyFailure) -> Response:
        return _dify_problem(failure.status, failure.code, failure.message)

    async def not_ready(http: Request, error: Exception) -> Response:
        return _problem(http, 503, str(error))

    @app.exception_handler(sqlite3.OperationalError)
    async def busy(http: Request, error: sqlite3.OperationalError) -> Response:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise error
        return _problem(http, 503, "another program is writing to the data folder: try again", {"Retry-After": "1"})

    for failure in (IngestError, ModelFailure, EngineUnavailable, SpaceLost, RebuildFailed):
        app.add_exception_handler(failure, not_ready)


def _problem(http: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    # A lone surrogate, as JSON may hold it, has no UTF-8.
    line = detail.encode("utf-8", "replace").decode().replace("\n", " ")
    if http.url.path == _DIFY:
        return _dify_problem(400 if status == 422 else status, 400 if status == 422 else status, line)
    return JSONResponse({"detail": line}, status, headers=headers)


def _dify_problem(status: int, code: int, message: str) -> Response:
    return JSONResponse({"error_code": code, "error_msg": message}, status)
