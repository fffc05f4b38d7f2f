"""An ASGI app on a port of this machine, of its loopback interface by default, run by uvicorn in a thread."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn

SECONDS = 30.0  # how long a start or a stop may take


class AsgiServer:
    """Serve `app` from now until `close` or the end of a `with` block.

    Attributes:
        url: without a slash at its end.

    Raises:
        RuntimeError: the app does not start or does not stop.
    """

    def __init__(
        self, app: Any, *, host: str = "127.0.0.1", port: int = 0, log_level: str = "warning", **config: Any
    ) -> None:
        listener = socket.create_server((host, port))
        self.url = f"http://{host}:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level=log_level, access_log=False, **config))
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the app did not start: uvicorn's log names the cause")
            time.sleep(0.005)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"the app still has requests under way {SECONDS:.0f} s after it was stopped")

    def __enter__(self) -> AsgiServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
