"""Who may do what: keys name a tenant; without keys a request names its own."""

from __future__ import annotations

from fastapi import HTTPException, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from rag.catalogue.access_keys import Access, AccessKeys, Scope
from rag.fair_shares import REST, FairShares
from rag.service.dify_contracts import NO_BEARER, REFUSED, DifyFailure
from rag.service.request_log import record_of


class Gate(SecurityBase):
    """A dependency that notes what the caller's key allows in the request's record; nothing while it is open.

    `keys_wanted`: closed from the start. Else the first key closes it at once, unless it is `open_to_everybody`.
    `refusals`, `long_bodies`: the turns of those who are refused, and of those who send much.
    """

    def __init__(self, keys: AccessKeys, keys_wanted: bool, open_to_everybody: bool = False):
        self.keys = keys
        self._closed, self._open_to_everybody = keys_wanted, open_to_everybody and not keys_wanted
        self.model = HTTPBearerModel(description="A key of `python -m rag.manage_keys`")
        self.scheme_name = "access key"
        self.refusals, self.long_bodies = FairShares(1), FairShares(1, REST)

    def is_closed(self) -> bool:
        """Return whether callers need a key. What is closed stays closed."""
        if not self._closed and not self._open_to_everybody:
            self._closed = self.keys.any()
        return self._closed

    async def __call__(self, http: Request) -> None:
        """
        Raises:
            HTTPException: 401, no key, or none in use.
        """
        record = record_of(http.scope)
        if record.access is not None or not self.is_closed():
            return
        key = bearer(http)
        record.access = self.keys.check(key) if key else None
        if record.access is None:
            problem = "this key is not in use" if key else "an access key is needed: Authorization: Bearer KEY"
            raise HTTPException(401, problem, {"WWW-Authenticate": "Bearer"})


class DifyGate(SecurityBase):
    """The same, failing in Dify's words."""

    def __init__(self, gate: Gate):
        self._gate = gate
        self.model, self.scheme_name = gate.model, gate.scheme_name
        self.refusals, self.long_bodies = gate.refusals, gate.long_bodies

    async def __call__(self, http: Request) -> None:
        """
        Raises:
            DifyFailure: 403, no key, or none in use.
        """
        try:
            await self._gate(http)
        except HTTPException as error:
            raise DifyFailure(403, REFUSED if bearer(http) else NO_BEARER, error.detail) from None


def allowed_tenant(access: Access | None, given: str | None, scope: Scope = "search") -> str:
    """Return the tenant that the caller may act for, as far as `scope` goes.

    Raises:
        HTTPException: 403, the key is another tenant's (whether or not that one exists) or may search only; 422, no
            tenant is named.
    """
    if access is None:
        if not given:
            raise HTTPException(422, "tenant_id: Field required")
        return given
    if given is not None and given != access.tenant_id:
        raise HTTPException(403, "this key does not open that tenant's knowledge bases")
    if scope == "manage" and access.scope != "manage":
        raise HTTPException(403, "this key may search only")
    return access.tenant_id


def bearer(http: Request) -> str:
    """Return the key of the Authorization header, "" when it holds none."""
    scheme, _, key = http.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
