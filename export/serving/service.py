"""The tenants' routes, made of the settings, and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi import HTTPException
from prometheus_client.core import Metric

from export.serving.backend import Launch
from export.serving.metrics import Metrics, backend_metrics
from export.serving.model_slot import ModelSlot
from export.serving.outcome_log import OutcomeLog
from export.serving.retrieval import InterleavedRetrieval
from export.serving.rewriters import ChatRewriter, ContractRewriter, Rewriter, one_attempt
from export.serving.settings import RewriterSettings, ServingSettings, TenantServing
from export.serving.tenant_route import TenantRoute
from guard.web.draining import InFlight
from reward.records.files import BadInput
from reward.settings.recipe import TenantSettings, load_tenant
from reward.settings.services import BaselineSettings


class Service:
    """Use it from a single event loop: `start` it, and close it with `aclose`."""

    def __init__(self, settings: ServingSettings, tenants: Mapping[str, TenantSettings], launch: Launch):
        self.settings = settings
        self.metrics, self.in_flight = Metrics(), InFlight()
        self.log = OutcomeLog(settings.log, settings.log_texts)
        self.slots: list[tuple[str, ModelSlot]] = []
        self.routes: dict[str, TenantRoute] = {}
        for tenant_id, served in settings.tenants.items():
            rewriters = {
                name: self._rewriter(name, one, tenants[tenant_id], served, launch)
                for name, one in served.rewriters.items()
            }
            self.routes[tenant_id] = TenantRoute(tenants[tenant_id], served, rewriters, self.log, self.metrics)
        self.retrievals = {
            tenant_id: InterleavedRetrieval(route, self.log, self.metrics) for tenant_id, route in self.routes.items()
        }
        self.metrics.watch(self._backends)

    def route_of(self, tenant_id: str) -> TenantRoute:
        """Return the route of a tenant; the only one where none is named.

        Raises:
            HTTPException: 422, the tenant is not served here.
        """
        if not tenant_id and len(self.routes) == 1:
            return next(iter(self.routes.values()))
        route = self.routes.get(tenant_id)
        if route is None:
            raise HTTPException(422, "tenant_id: not a tenant that is served here")
        return route

    async def start(self) -> None:
        for _, slot in self.slots:
            await slot.start()

    async def aclose(self) -> None:
        for tenant_id, route in self.routes.items():
            await self.retrievals[tenant_id].aclose()
            await route.aclose()
        self.log.close()

    def _rewriter(
        self, name: str, one: RewriterSettings, tenant: TenantSettings, served: TenantServing, launch: Launch
    ) -> Rewriter:
        limits = one_attempt(served.timeout, self.settings.max_in_flight, one.api_key_env)
        if one.url is not None:
            baseline = BaselineSettings(**limits.model_dump(), url=one.url)
            return ContractRewriter(baseline, tenant.tenant_id, one.url)
        if one.chat_url is not None:
            assert one.max_new_tokens is not None
            return ChatRewriter(
                one.chat_url,
                tenant,
                served_model=one.served_model,
                version=one.served_model,
                max_new_tokens=one.max_new_tokens,
                service=limits,
            )
        tenant_id = tenant.tenant_id
        slot = ModelSlot(
            name,
            one,
            tenant,
            self.settings.log,
            timeout=served.timeout,
            max_in_flight=self.settings.max_in_flight,
            count_swap=lambda outcome: self.metrics.count_swap(tenant_id, outcome),
            launch=launch,
        )
        self.slots.append((tenant_id, slot))
        return slot

    def _backends(self) -> Iterable[Metric]:
        states = [(tenant_id, slot.name, slot.ready, slot.restarts) for tenant_id, slot in self.slots]
        return backend_metrics(states, self.log.dropped)


def load_tenants(settings: ServingSettings) -> dict[str, TenantSettings]:
    """Read the settings of the tenants that are served.

    Raises:
        BadInput: there is no such tenant, or its file is another one's.
    """
    tenants = {}
    for tenant_id, served in settings.tenants.items():
        tenant = load_tenant(str(served.tenant or tenant_id))
        if tenant.tenant_id != tenant_id:
            raise BadInput(f"{served.tenant}: tenant_id is {tenant.tenant_id!r}, served as {tenant_id!r}")
        tenants[tenant_id] = tenant
    return tenants
