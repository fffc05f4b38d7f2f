"""The answer that says in one line what is wrong."""

from __future__ import annotations

import json

from starlette.types import Send


async def send_problem(send: Send, status: int, detail: str, close: bool = False) -> None:
    """Send a whole answer {"detail": ...}; `close` ends the connection after it."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
