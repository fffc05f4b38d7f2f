"""One model server as a child process: started, watched, started again when it dies, and stopped with its children."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from guard.private_files import keep_private, make_folder

_LOG = logging.getLogger("export.serving")
START_SECONDS = 900.0  # 32B weights from a slow disk
STOP_SECONDS = 20.0
PROBE_SECONDS = 0.25
RESTART_SECONDS = (1.0, 60.0)  # the wait before a restart doubles from the first to the second
STEADY_SECONDS = 60.0  # who lived so long has no waits to pay for
CPU_KV_CACHE_GIB = "1"  # plenty for the small models that a CPU can serve
_libc = ctypes.CDLL(None)
_DEATH_SIGNAL = 1  # of Linux's prctl


class BackendFailed(Exception):
    """The server did not come up: one line with its last words."""


@dataclass(frozen=True)
class ModelServer:
    """What is to be run.

    Args:
        model: Hugging Face folder.
        max_model_len: tokens of a prompt and its answer.
        gpu_memory_utilization: share of the card.
        seconds: how long a start may take.
        served_model: the model's name in requests, another one for each server: a stranger on the port has it not.
    """

    model: Path
    max_model_len: int
    gpu_memory_utilization: float
    seconds: float = START_SECONDS
    served_model: str = field(default_factory=lambda: f"rewriter-{secrets.token_hex(4)}")


Launch = Callable[[ModelServer, int], list[str]]


def vllm_command(server: ModelServer, port: int) -> list[str]:
    """Return the command line of vLLM's own OpenAI server on a loopback port."""
    gpu = Path("/dev/nvidia0").exists()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(server.model.resolve())),
        *("--served-model-name", server.served_model, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(server.max_model_len), "--seed", "0"),
        # The model's own sampling defaults (top-p, repetition penalty) are not what the rollouts had.
        *("--generation-config", "vllm", "--uvicorn-log-level", "warning", "--disable-uvicorn-access-log"),
    ]
    if gpu:
        return [*command, "--dtype", "bfloat16", "--gpu-memory-utilization", str(server.gpu_memory_utilization)]
    return [*command, "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "32"]


class Backend:
    """Use it from a single event loop. `restarts` counts the deaths that were answered with a new process.

    Args:
        log: file that gets what the server prints.
        check: asks a server that has just started something, and raises when it does not answer right. Callers do not
            wait for these answers, the slowest of a server.
        launch: makes the command line; tests run a smaller server.
    """

    def __init__(
        self, server: ModelServer, log: Path, check: Callable[[str], Awaitable[None]], launch: Launch = vllm_command
    ):
        self.server = server
        self.restarts = 0
        self.port = _free_port()
        self._log_file = log
        self._check, self._launch = check, launch
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._ready = False

    @property
    def chat_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def ready(self) -> bool:
        """Whether the server answers; False while it is started again."""
        return self._ready

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the server and wait until it is healthy; from then on it is watched.

        Raises:
            BackendFailed: it ended or did not answer in time; nothing of it runs any more. So with what `check` raises.
        """
        try:
            await self._start_once()
        except BaseException:
            await self._end()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End the server and its children: SIGTERM, after `STOP_SECONDS` SIGKILL."""
        if self._watcher:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._end()

    async def _start_once(self) -> None:
        make_folder(self._log_file.parent)
        with open(self._log_file, "ab", opener=keep_private) as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._launch(self.server, self.port),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(os.environ),
                start_new_session=True,  # its children end with it
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + self.server.seconds
        async with aiohttp.ClientSession(trust_env=False) as http:
            while not await self._healthy(http):
                if self._process.returncode is not None:
                    raise BackendFailed(f"{self.server.model}: the server ended: {self._last_words()}")
                if time.monotonic() > deadline:
                    raise BackendFailed(
                        f"{self.server.model}: no answer within {self.server.seconds:g} s: {self._last_words()}"
                    )
                await asyncio.sleep(PROBE_SECONDS)
        await self._check(self.chat_url)
        self._ready = True

    async def _healthy(self, http: aiohttp.ClientSession) -> bool:
        """Return whether the port answers, and with this server's model."""
        try:
            async with http.get(f"{self.chat_url}/models", timeout=aiohttp.ClientTimeout(total=5)) as response:
                models = await response.json()
            return any(model["id"] == self.server.served_model for model in models["data"])
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
            return False

    async def _watch(self) -> None:
        wait = RESTART_SECONDS[0]
        while self._process is not None:
            since = time.monotonic()
            await self._process.wait()
            self._ready = False
            self.restarts += 1
            _LOG.error("backend ended", extra={"model": str(self.server.model), "status": self._process.returncode})
            if time.monotonic() - since > STEADY_SECONDS:
                wait = RESTART_SECONDS[0]
            await self._end()  # children of the dead process may still hold the card
            while True:
                try:
                    await self._start_once()
                    break
                except Exception as problem:  # whatever it is, another start may not have it
                    _LOG.error("backend did not start", extra={"problem": str(problem) or repr(problem)})
                    await self._end()
                    await asyncio.sleep(wait)
                    wait = min(2 * wait, RESTART_SECONDS[1])

    async def _end(self) -> None:
        self._ready = False
        process = self._process
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
                while _group_lives(process.pid):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        finally:
            _signal_group(process.pid, signal.SIGKILL)
        await process.wait()

    def _last_words(self) -> str:
        with open(self._log_file, "rb") as log:
            log.seek(max(0, self._log_file.stat().st_size - 8192))
            lines = [line for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f"{(lines or ['it printed nothing'])[-1].strip()} (log: {self._log_file})"


def context_length(model: Path, max_prompt_tokens: int, max_new_tokens: int) -> int:
    """Return how many tokens a server of this model must hold: prompt and answer, within what the model can."""
    wanted = max_prompt_tokens + max_new_tokens
    try:
        limit = json.loads((model / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return wanted
    return min(wanted, limit) if isinstance(limit, int) else wanted


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a model server: offline, no reports home, not a proxy in sight."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_KVCACHE_SPACE": CPU_KV_CACHE_GIB,
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    # A plug-in that is meant for the trainer has no business in the server.
    dropped = ("VERL_USE_EXTERNAL_MODULES", "VERL_PLATFORM")
    return defaults | {name: value for name, value in given.items() if name not in dropped}


def _end_with_parent() -> None:
    _libc.prctl(_DEATH_SIGNAL, signal.SIGTERM)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
