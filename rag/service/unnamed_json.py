"""Bodies that are JSON and do not say so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from rag.service.read_request import KeyFirst

_UNNAMED = ("", "application/x-www-form-urlencoded", "text/plain")


class UnnamedJson(KeyFirst):
    """A route that reads a body as JSON also where no header says what it is, as with `curl -d`.

    A browser is held to the header: without it another site's page could send requests for its visitor.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind in _UNNAMED and "origin" not in request.headers:
                others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
                headers = [*others, (b"content-type", b"application/json")]
                request = Request({**request.scope, "headers": headers}, request.receive)
            return await handle(request)

        return read
