"""Requests that another site's page makes with its visitor's browser, and headers that keep browsers careful."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guard.web.problem import send_problem

# Hosts that a service without keys answers to: with any other name, a page of that name could read its answers.
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

# A page of the service's own sets its Content-Security-Policy itself.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Origins:
    """ASGI middleware: 403 to what a page of another origin sends; adds the headers to every answer."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if is_cross_site(scope["method"], Headers(scope=scope)):
            await send_problem(send_with_headers, 403, "a page of another site may not use this service", close=True)
            return
        await self._app(scope, receive, send_with_headers)


def is_cross_site(method: str, headers: Headers) -> bool:
    """Return whether a browser sends this for a page of another origin. Programs send neither header.

    A link from another site may be followed. Browsers older than `Sec-Fetch-Site` name the page's origin.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        followed = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not followed
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
