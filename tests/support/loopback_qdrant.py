"""A Qdrant server on loopback: the REST endpoints our client uses, answered by qdrant-client's own local mode."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from qdrant_client import QdrantClient, models

from tests.support.asgi_server import AsgiServer

API_KEY = "loopback-key"


def make_app(version: str) -> FastAPI:
    warnings.filterwarnings("ignore", message=".*[Ll]ocal mode.*")
    warnings.filterwarnings("ignore", message="Payload indexes have no effect.*")
    local = QdrantClient(":memory:")
    guard = threading.Lock()  # local mode is not safe for threads
    app = FastAPI()

    @app.middleware("http")
    async def check_key(request: Request, call_next: Any) -> Any:
        if request.headers.get("api-key", API_KEY) != API_KEY:
            return JSONResponse({"status": {"error": "wrong key"}}, 401)
        return await call_next(request)

    def ok(result: object) -> dict[str, object]:
        return {"result": result, "status": "ok", "time": 0.0}

    def known(name: str) -> str:
        if not local.collection_exists(name):
            raise HTTPException(404, f"Collection `{name}` doesn't exist!")
        return name

    @app.get("/")
    def info() -> dict[str, str]:
        return {"title": "qdrant - vector search engine", "version": version}

    @app.get("/collections/{name}/exists")
    def exists(name: str) -> object:
        return ok({"exists": local.collection_exists(name)})

    @app.put("/collections/{name}")
    def create(name: str, given: models.CreateCollection) -> object:
        with guard:
            if local.collection_exists(name):
                raise HTTPException(409, f"Collection `{name}` already exists!")
            return ok(local.create_collection(name, given.vectors, given.sparse_vectors))

    @app.put("/collections/{name}/index")
    def create_index(name: str, given: models.CreateFieldIndex) -> object:
        with guard:
            return ok(local.create_payload_index(known(name), given.field_name, given.field_schema))

    @app.put("/collections/{name}/points")
    def upsert(name: str, given: models.PointsList) -> object:
        with guard:
            return ok(local.upsert(known(name), given.points))

    @app.post("/collections/{name}/points/delete")
    def delete(name: str, given: Annotated[models.PointsSelector, Body()]) -> object:
        with guard:
            return ok(local.delete(known(name), given))

    @app.post("/collections/{name}/points/count")
    def count(name: str, given: models.CountRequest) -> object:
        with guard:
            return ok(local.count(known(name), given.filter))

    @app.post("/collections/{name}/points/query/batch")
    def query_batch(name: str, given: models.QueryRequestBatch) -> object:
        with guard:
            return ok(local.query_batch_points(known(name), given.searches))

    return app


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """URL of the app, answering until the block ends."""
    with AsgiServer(app, port=port, log_level="error", timeout_graceful_shutdown=1) as server:
        yield server.url


@contextmanager
def qdrant_server(version: str = "1.20.0") -> Iterator[str]:
    with serving(make_app(version)) as url:
        yield url
