"""The rewriter of a model that the drop-in serves itself; a champion is swapped for its successor without a pause.

A swap: the new model's folder has the hash that the registry names → its server starts beside the old one → its
fingerprint is right → new requests go there → the old server stops when its last request is answered. When a step
fails, the old model goes on; /healthz and the metrics say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluation.systems import answer_limit, model_hash
from export.serving.backend import (
    Backend,
    Launch,
    ModelServer,
    context_length,
    vllm_command,
)
from export.serving.champion import Champion, champion_file, read_champion
from export.serving.fingerprint import FOLDER, check_fingerprint, fingerprint_file, take_fingerprint
from export.serving.rewriters import ChatRewriter, Rewritten, one_attempt
from export.serving.settings import RewriterSettings
from reward.records.files import BadInput
from reward.records.sample import Sample
from reward.settings.recipe import TenantSettings

_LOG = logging.getLogger("export.serving")
POLL_SECONDS = 1.0
DRAIN_SECONDS = 30.0
FINGERPRINT_SECONDS = 120.0  # the first prompts may compile something


@dataclass
class _Served:
    """A running model and how many of its requests are under way."""

    champion: Champion
    backend: Backend
    rewriter: ChatRewriter
    in_flight: int = 0


class ModelSlot:
    """A `Rewriter` whose model runs here. Use it from a single event loop.

    Args:
        folder: of logs and fingerprints.
        count_swap: gets `swapped` or `refused` for each champion that followed another.
    """

    def __init__(
        self,
        name: str,
        settings: RewriterSettings,
        tenant: TenantSettings,
        folder: Path,
        *,
        timeout: float,
        max_in_flight: int,
        count_swap: Callable[[str], None] = lambda outcome: None,
        launch: Launch = vllm_command,
    ):
        self.name = name
        self.problem = ""
        self._settings, self._tenant, self._folder = settings, tenant, folder
        self._timeout, self._max_in_flight = timeout, max_in_flight
        self._count_swap, self._launch = count_swap, launch
        self._served: _Served | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def version(self) -> str:
        """The champion's version, or the model's folder; "" before the start."""
        return self._served.champion.version if self._served else ""

    @property
    def ready(self) -> bool:
        return self._served is not None and self._served.backend.ready

    @property
    def restarts(self) -> int:
        return self._served.backend.restarts if self._served else 0

    @property
    def backend(self) -> Backend:
        """The server that answers now. Before the start there is none."""
        assert self._served is not None
        return self._served.backend

    async def start(self) -> None:
        """Start the model's server; of a registry, follow its champion from now on.

        Raises:
            BadInput: no such model or champion.
            BackendFailed: its server does not start.
            BadFingerprint: the server does not answer like the model.
        """
        champion = await asyncio.to_thread(self._wanted)
        self._served = await self._bring_up(champion)
        if self._settings.registry is not None:
            self._watcher = asyncio.create_task(self._follow(self._stamp()))

    async def rewrite(self, sample: Sample) -> Rewritten:
        """Ask the model that serves now; a server that is down fails at once."""
        served = self._served
        if served is None or not served.backend.ready:
            return Rewritten("", 0.0, "starting", version=self.version)
        served.in_flight += 1
        try:
            return await served.rewriter.rewrite(sample)
        finally:
            served.in_flight -= 1

    async def aclose(self) -> None:
        """Stop following, and every server."""
        tasks = [task for task in (self._watcher, *self._draining) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._served:
            await self._stop(self._served)

    def _wanted(self) -> Champion:
        """Return the champion, its folder's hash checked; without a registry the settings' model.

        Raises:
            BadInput: there is no such model, or it is not the one that was promoted.
        """
        if self._settings.registry is None:
            assert self._settings.model is not None
            model = self._settings.model
            return Champion(version=model.name, model=model, model_sha256=model_hash(model))
        champion = read_champion(self._settings.registry, self._tenant.tenant_id)
        found = model_hash(champion.model)
        if found != champion.model_sha256:
            raise BadInput(
                f"{champion.model}: its files are not those that were promoted as {champion.version} "
                f"(SHA-256 {found[:12]}…, promoted {champion.model_sha256[:12]}…)"
            )
        return champion

    async def _bring_up(self, champion: Champion) -> _Served:
        limit = self._settings.max_new_tokens or answer_limit(champion.model)
        server = ModelServer(
            champion.model,
            context_length(champion.model, self._settings.max_prompt_tokens, limit),
            self._settings.gpu_memory_utilization,
        )
        fingerprints = (self._settings.registry or self._folder) / FOLDER
        record = fingerprint_file(fingerprints, champion.model_sha256, self._tenant, limit)

        def rewriter(chat_url: str, timeout: float) -> ChatRewriter:
            return ChatRewriter(
                chat_url,
                self._tenant,
                served_model=server.served_model,
                version=champion.version,
                max_new_tokens=limit,
                service=one_attempt(timeout, self._max_in_flight, None),
            )

        async def check(chat_url: str) -> None:
            patient = rewriter(chat_url, FINGERPRINT_SECONDS)
            try:
                check_fingerprint(record, await take_fingerprint(patient, self._tenant))
            finally:
                await patient.aclose()

        log = self._folder / f"{self._tenant.tenant_id}-{self.name}.log"
        backend = Backend(server, log, check, self._launch)
        await backend.start()
        return _Served(champion, backend, rewriter(backend.chat_url, self._timeout))

    async def _follow(self, seen: tuple[int, int] | None) -> None:
        """Swap whenever the registry's file is another one. A champion that was refused is tried again when the file
        is written again."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            stamp = self._stamp()
            if stamp == seen:
                continue
            seen = stamp
            try:
                await self._swap()
            except Exception as problem:  # whatever it is, the old model goes on and the next champion has its turn
                self.problem = str(problem) or repr(problem)
                self._count_swap("refused")
                _LOG.error("swap refused", extra={"problem": self.problem})

    def _stamp(self) -> tuple[int, int] | None:
        """Return what changes when the champion's file is replaced; None while there is none."""
        assert self._settings.registry is not None
        try:
            stat = champion_file(self._settings.registry, self._tenant.tenant_id).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    async def _swap(self) -> None:
        champion = await asyncio.to_thread(self._wanted)
        old = self._served
        if old is not None and old.champion.model_sha256 == champion.model_sha256:
            old.champion, self.problem = champion, ""
            old.rewriter.version = champion.version
            return
        self._served = await self._bring_up(champion)
        self.problem = ""
        self._count_swap("swapped")
        _LOG.info("swapped", extra={"version": champion.version})
        if old is not None:
            task = asyncio.create_task(self._drain(old))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def _drain(self, old: _Served) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while old.in_flight:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        finally:
            await self._stop(old)

    async def _stop(self, served: _Served) -> None:
        await served.rewriter.aclose()
        await served.backend.stop()
