"""Requests written byte by byte, which no client would send."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from http.client import HTTPResponse
from urllib.parse import urlsplit


def exchange(url: str, request: bytes, more: Iterable[bytes] = ()) -> tuple[int, bytes]:
    """Status and body of the answer to these very bytes; the connection may break while they are sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        try:
            connection.sendall(request)
            for piece in more:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have been answered before
        response = HTTPResponse(connection)
        try:
            response.begin()
            return response.status, response.read()
        except (ConnectionResetError, ConnectionAbortedError):
            return 0, b""


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()
