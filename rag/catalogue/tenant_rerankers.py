"""Which reranker a tenant has, each one that it had before, and what each gave the canary pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import now


@dataclass(frozen=True, slots=True)
class TenantReranker:
    """`address`: as `open_reranker` takes it, "" for the settings' one. `model_id`: of the model as it was when it was
    set. `canary`: its scores of the canary pairs then."""

    swap_id: int
    tenant_id: str
    address: str
    model_id: str
    canary: tuple[float, ...]
    set_at: str


class TenantRerankers:
    def __init__(self, catalogue: Catalogue):
        self._database = catalogue.database

    def set(self, tenant_id: str, address: str, model_id: str, canary: Sequence[float]) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO rerankers (tenant_id, address, model_id, canary, set_at) VALUES (?, ?, ?, ?, ?)",
                (tenant_id, address, model_id, json.dumps([round(score, 6) for score in canary]), now()),
            )

    def current(self, tenant_id: str) -> TenantReranker | None:
        """Return the one set last; None where none was ever set."""
        found = self._rows("tenant_id = ? ORDER BY id DESC LIMIT 1", tenant_id)
        return found[0] if found else None

    def history(self) -> list[TenantReranker]:
        """Return every swap of every tenant, the first first."""
        return self._rows("1 ORDER BY id")

    def _rows(self, condition: str, *values: str) -> list[TenantReranker]:
        rows = self._database.connection.execute(
            f"SELECT id, tenant_id, address, model_id, canary, set_at FROM rerankers WHERE {condition}", values
        )
        return [TenantReranker(i, t, a, m, tuple(json.loads(canary)), at) for i, t, a, m, canary, at in rows]
