"""Run the trainer and Ray's workers as forks of one process that has imported what they share.

    python -m verl_cpu.fork_server verl.trainer.main_ppo [arguments]

A run has ten Python processes, and each of them takes up to ten CPU seconds to import torch, transformers and vLLM: on
two cores that is most of the time before the first step. Here one process imports them. It forks the trainer, and a
worker whenever Ray starts one (`verl_cpu.fork_worker`). It ends when the trainer does, with the trainer's exit code.

A fork has the memory of the server and none of its threads. The server therefore computes nothing, and starts no thread
but that of Arrow's allocator, which starts it again in a fork.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import secrets
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_cpu.fork_worker import SERVER_VARIABLE

# What the processes of a run import, but for Ray, which reads the environment of its process while it is loaded, and
# what loads Ray: verl, and the rest of vLLM. That rest costs each fork a second.
PRELOADED = (
    "torch._dynamo",
    "tensordict",
    "hydra",
    "transformers.modeling_layers",
    "peft",
    "datasets",
    "openai",
    "aiohttp",
    "fastapi",
    "uvicorn",
    "zmq",
    "vllm.distributed.utils",
    "vllm.engine.arg_utils",
    "vllm.entrypoints.openai.cli_args",
    "vllm.lora.lora_model",
    "vllm.model_executor.models.qwen3_next",
    "vllm.v1.worker.cpu_model_runner",
)
REQUEST_SECONDS = 10.0  # for a request to arrive
_DEATH_SIGNAL = 1  # of Linux's prctl

Job = Callable[[], None]


@dataclass(frozen=True)
class Request:
    """What a worker asks for (`fork_worker.ask`). `output`: descriptors of its stdin, stdout and stderr."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    group: int
    open_files: tuple[int, int]
    output: list[int]


def main(arguments: list[str], preloaded: Sequence[str] = PRELOADED) -> int:
    """Serve until the trainer ends; in a fork, run what it was made for.

    Args:
        arguments: the trainer's module and its arguments.

    Returns:
        The trainer's exit code, 128 + n after signal n.
    """
    claims = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and _is_open(int(name))]
    listener = _listen()
    os.environ.setdefault("RAY_RUNTIME_ENV_HOOK", "verl_cpu.fork_worker.fork_workers")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else OpenBLAS starts threads when it is loaded
    for name in preloaded:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork's collector leaves these objects alone, and shares their memory pages
    server = os.getpid()
    trainer = os.fork()
    if trainer == 0:
        listener.close()
        _run_trainer(arguments, server)
        return 0
    job = _serve(listener, trainer, claims)
    if not isinstance(job, int):
        job()
        return 0
    return job


def _listen() -> socket.socket:
    """Open the socket where workers are asked for, and tell its name to the processes to come."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = f"verl_cpu-{os.getpid()}-{secrets.token_hex(8)}"
    listener.bind("\0" + name)
    listener.listen(64)
    os.environ[SERVER_VARIABLE] = name
    return listener


def _serve(listener: socket.socket, trainer: int, claims: list[int]) -> Job | int:
    """Fork a worker for every request until the trainer ends.

    Args:
        claims: descriptors that the trainer shares with its launcher, and no worker keeps.

    Returns:
        In the server the trainer's exit code; in a fork what it has to run.
    """
    with suppress(OSError):  # the trainer has done so itself, or has ended
        os.setpgid(trainer, trainer)
    usual = signal.signal(signal.SIGTERM, lambda *_: _end_group(trainer))
    ended = os.pidfd_open(trainer)
    waited_for: list[Any] = [listener, ended]
    while (code := _reap(trainer)) is None:
        ready, _, _ = select.select(waited_for, [], [], 1.0)
        if listener not in ready:
            continue
        client, _ = listener.accept()
        try:
            request = _receive(client)
        except (OSError, ValueError, TypeError, KeyError) as error:
            print(f"verl_cpu: a request for a worker is refused: {error}", file=sys.stderr)
            client.close()  # and the worker starts without a fork
            continue
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, usual)
            for descriptor in (listener.detach(), client.detach(), ended, *claims):
                os.close(descriptor)
            return lambda: _run_worker(request)
        for descriptor in request.output:
            os.close(descriptor)
        with client, suppress(OSError):
            client.sendall(b"1")
    return code


def _end_group(trainer: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(trainer, signal.SIGTERM)


def _reap(trainer: int) -> int | None:
    """Collect the forks that have ended; return the trainer's exit code once it has."""
    while (ended := os.waitpid(-1, os.WNOHANG))[0]:
        if ended[0] == trainer:
            code = os.waitstatus_to_exitcode(ended[1])
            return code if code >= 0 else 128 - code
    return None


def _receive(client: socket.socket) -> Request:
    """Read a request.

    Raises:
        OSError: it comes from another user, or did not arrive.
        ValueError, TypeError, KeyError: it is none.
    """
    client.settimeout(REQUEST_SECONDS)
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    if user != os.getuid():
        raise PermissionError(f"it comes from user {user}")
    head, output, _, _ = socket.recv_fds(client, 4, 3)
    with client.makefile("rb") as file:
        values: dict[str, Any] = json.loads(file.read(int.from_bytes(head, "big")))
    return Request(**{**values, "open_files": tuple(values["open_files"])}, output=output)


def _run_trainer(arguments: list[str], server: int) -> None:
    """Become `python -m` with `arguments`, in a process group that ends with the server."""
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != server:
        raise SystemExit("the fork server has ended")
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _run_worker(request: Request) -> None:
    """Become the worker that was asked for, as if Python had been started with its script."""
    for number, descriptor in enumerate(request.output):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Ray ends a worker's process group with the worker: it must not be the server's.
    try:
        os.setpgid(0, request.group)
    except OSError:  # that group has ended meanwhile
        os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, request.open_files)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all forks draw the same numbers
    script, *rest = [argument for argument in request.arguments if argument != "-u"]
    sys.argv, sys.path[0] = [script, *rest], str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
