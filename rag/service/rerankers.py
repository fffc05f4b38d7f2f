"""The rerankers of a running service: the settings' one, and tenants' own, swapped while requests go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.tenant_rerankers import TenantReranker, TenantRerankers
from rag.documents.records import IngestError
from rag.models.failure import ModelFailure
from rag.models.reranker import Reranker, open_reranker
from rag.models.reranker_canary import TOLERANCE, canary_scores, drift
from rag.service.metrics import Metrics

_LOG = logging.getLogger(__name__)
# Requests that use a reranker that was swapped end well within it.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class _Own:
    """A tenant's reranker as of one swap; None: the settings' one."""

    swap_id: int
    reranker: Reranker | None


class Rerankers:
    """Use it on one event loop. `load` opens what tenants have before the first request. Later a tenant's reranker is
    looked up at each request; a new one is loaded in the background and checked by its canary, and until it has passed
    the tenant keeps what it has."""

    def __init__(self, catalogue: Catalogue, default: Reranker | None, metrics: Metrics):
        self.default = default
        self._kept = TenantRerankers(catalogue)
        self._metrics = metrics
        self._own: dict[str, _Own] = {}
        self._tried: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Load and check each tenant's reranker; one that does not pass is logged, and its tenant has the settings'."""
        for wanted in {swap.tenant_id: swap for swap in self._kept.history()}.values():
            self._tried[wanted.tenant_id] = wanted.swap_id
            await self._swap(wanted)

    def of(self, tenant_id: str) -> Reranker | None:
        """Return the tenant's reranker; never waits for one that is being loaded."""
        wanted = self._kept.current(tenant_id)
        # A model that did not pass is not tried again before it is set again.
        if wanted is not None and wanted.swap_id != self._tried.get(tenant_id):
            self._tried[tenant_id] = wanted.swap_id
            self._start(self._swap(wanted))
        return self.in_use(tenant_id)

    def in_use(self, tenant_id: str) -> Reranker | None:
        """Return the tenant's reranker, without looking for a new one: may be called by any thread."""
        own = self._own.get(tenant_id)
        return self.default if own is None or own.reranker is None else own.reranker

    def problem(self, tenant_id: str) -> str:
        """Say why the reranker that was set last is not in use; "" where it is, or none was set."""
        return self._problems.get(tenant_id, "")

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        for own in self._own.values():
            if own.reranker is not None:
                await own.reranker.aclose()
        if self.default is not None:
            await self.default.aclose()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _swap(self, wanted: TenantReranker) -> None:
        """Load and check what a tenant wants, then put it in the place of what it has."""
        tenant, reranker = wanted.tenant_id, None
        self._problems[tenant] = f"{wanted.address}: is being loaded" if wanted.address else ""
        try:
            if wanted.address:
                reranker = await asyncio.to_thread(open_reranker, wanted.address)
                if reranker.id != wanted.model_id:
                    raise ModelFailure(f"the model is {reranker.id}, but {wanted.model_id} was set")
                scores = await canary_scores(reranker)
                if (moved := drift(wanted.canary, scores)) > TOLERANCE:
                    raise ModelFailure(f"{reranker.id}: its canary differs by {moved:.3f} from when it was set")
        except (IngestError, ModelFailure) as error:
            if reranker is not None:
                await reranker.aclose()
            self._problems[tenant] = f"{wanted.address}: {error}" if wanted.address not in str(error) else str(error)
            self._metrics.count_swap(tenant, "refused")
            _LOG.error("%s: reranker not swapped: %s", tenant, self._problems[tenant])
            return
        before, self._own[tenant] = self._own.get(tenant), _Own(wanted.swap_id, reranker)
        self._problems.pop(tenant, None)
        self._metrics.count_swap(tenant, "swapped")
        _LOG.info("%s: reranker is %s", tenant, reranker.id if reranker else "the settings' one")
        if before is not None and before.reranker is not None:
            old = before.reranker
            await asyncio.sleep(GRACE_SECONDS)
            await old.aclose()
