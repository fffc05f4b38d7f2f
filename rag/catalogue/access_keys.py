"""Keys that let a program or a person use one tenant's knowledge bases."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

from rag.catalogue.catalogue import Catalogue
from rag.catalogue.database import now

Scope = Literal["search", "manage"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a key allows: `manage` allows to search, too."""

    key_id: int
    tenant_id: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class AccessKeyRow:
    key_id: int
    tenant_id: str
    scope: Scope
    note: str
    created_at: str
    revoked_at: str | None


class AccessKeys:
    """Only SHA-256 of each key is stored. A key is 256 random bits, so that a slow hash would add nothing."""

    def __init__(self, catalogue: Catalogue):
        self._database = catalogue.database

    def create(self, tenant_id: str, scope: Scope, note: str = "") -> str:
        """Create a key and return it; it is shown this once."""
        key = f"rag_{secrets.token_urlsafe(32)}"
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO access_keys (key_hash, tenant_id, scope, note, created_at) VALUES (?, ?, ?, ?, ?)",
                (_hash(key), tenant_id, scope, note, now()),
            )
        return key

    def check(self, key: str) -> Access | None:
        """Look a key up; None: unknown or revoked."""
        found = self._database.connection.execute(
            "SELECT id, tenant_id, scope FROM access_keys WHERE key_hash = ? AND revoked_at IS NULL", (_hash(key),)
        ).fetchone()
        return Access(*found) if found else None

    def rows(self) -> list[AccessKeyRow]:
        rows = self._database.connection.execute(
            "SELECT id, tenant_id, scope, note, created_at, revoked_at FROM access_keys ORDER BY id"
        )
        return [AccessKeyRow(*row) for row in rows]

    def revoke(self, key_id: int) -> bool:
        """Revoke a key; return whether there was such a key in use."""
        with self._database.writing() as connection:
            revoked = connection.execute(
                "UPDATE access_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now(), key_id)
            )
        return revoked.rowcount == 1

    def any(self) -> bool:
        """Return whether any key was ever made: revoking the last one must not open the service."""
        return self._database.connection.execute("SELECT 1 FROM access_keys LIMIT 1").fetchone() is not None


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
