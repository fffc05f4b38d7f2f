"""Start a Ray worker as a fork of `verl_cpu.fork_server`, which has imported what the worker needs.

Ray runs this file in Python's place (`py_executable` of its runtime environment), with the worker's script and its
arguments. It asks the server and ends: Ray knows a worker by the process that registers itself. Without a server, it
becomes the worker.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import socket
import sys
from typing import Any

SERVER_VARIABLE = "VERL_CPU_FORK_SERVER"
SECONDS = 60.0  # for the server to answer


def fork_workers(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """Have Ray start its workers by this file, unless the run names an executable: a `RAY_RUNTIME_ENV_HOOK`."""
    # Python without its site packages starts in a tenth of the time.
    return {"py_executable": shlex.join([sys.executable, "-I", "-S", __file__]), **(runtime_env or {})}


def ask(arguments: list[str]) -> None:
    """Have the server fork a process that runs `arguments` with this one's environment, folder, output and limits.

    Raises:
        OSError: there is no server, or it did not answer.
    """
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "group": 0 if os.getpgrp() == os.getpid() else os.getpgrp(),  # 0: one of its own, where Ray has asked for one
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.settimeout(SECONDS)
        server.connect("\0" + os.environ.get(SERVER_VARIABLE, ""))
        socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
        server.sendall(text)
        if not server.recv(1):
            raise ConnectionError("the fork server did not answer")


if __name__ == "__main__":
    try:
        ask(sys.argv[1:])
    except OSError:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
