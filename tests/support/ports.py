"""Ports of the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


def free_port() -> int:
    """Return a port that nobody listens on now, for a process that cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def refusing_url() -> Iterator[str]:
    """Yield a URL that refuses every connection: its port is held, and nobody listens there."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unbound.getsockname()[1]}"
