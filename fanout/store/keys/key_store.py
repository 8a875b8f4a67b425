"""Keys in the database. Each change is written together with its record in the audit table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

from sqlalchemy import Connection, func, select, tuple_, update

from fanout.core.json_text import JsonObject
from fanout.store.engine.database import Database, run_to_end
from fanout.store.engine.text_columns import clean_name
from fanout.store.key_tables import key_secrets, keys
from fanout.store.keys.audit import AuditLog
from fanout.store.keys.secrets import SecretRow

Role = Literal["admin", "user", "viewer", "metrics"]
MAX_KEYS = 10_000
"""Keys that are good at once: a server holds all of them in memory, so that no request waits for the database."""


class KeyRow(NamedTuple):
    """A key: the columns of its table, in their order."""

    id: str
    created: float
    created_by: str
    name: str
    account_id: str
    role: Role
    limits: str
    """JSON."""
    expires: float | None
    revoked: float | None

    def is_good(self, now: float) -> bool:
        """Return whether it opens anything."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class KeyChange(TypedDict, total=False):
    """New values for columns of a key."""

    name: str
    account_id: str
    role: Role
    limits: str
    expires: float | None


class KeyStore:
    """The keys of a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.audit = AuditLog(database)

    @run_to_end
    async def create(self, key: KeyRow, secret: SecretRow, details: JsonObject) -> bool:
        """Store a new key; return whether there was room for it."""

        def write(connection: Connection) -> bool:
            self._database.lock_for_insert(connection, keys)  # or two at once would pass the bound together
            count = connection.scalar(select(func.count()).select_from(keys).where(keys.c.revoked.is_(None)))
            if (count or 0) >= MAX_KEYS:
                return False
            connection.execute(keys.insert().values(**{**key._asdict(), "account_id": clean_name(key.account_id)}))
            connection.execute(key_secrets.insert().values(**secret._asdict()))
            self.audit.write(connection, "key.created", key.created_by, key.id, details)
            return True

        return await self._database.write(write)

    @run_to_end
    async def change(self, key_id: str, values: KeyChange, actor: str, details: JsonObject) -> bool:
        """Change a key; return whether there is one that was not revoked."""
        return await self._database.write(
            lambda connection: self._update(connection, key_id, {**values}, "key.changed", actor, details)
        )

    @run_to_end
    async def revoke(self, key_id: str, actor: str) -> bool:
        """Let a key open nothing from now on; return whether there is one that was not revoked."""
        values = {"revoked": time.time()}
        return await self._database.write(lambda connection: self._update(connection, key_id, values, "key.revoked", actor, {}))

    @run_to_end
    async def rotate(self, secret: SecretRow, grace_s: float, actor: str) -> bool:
        """Give a key a new secret; earlier ones stay good for `grace_s`. Return whether there is one that was not revoked."""

        def write(connection: Connection) -> bool:
            details: JsonObject = {"prefix": secret.prefix, "grace_s": grace_s}
            if not self._update(connection, secret.key_id, {"id": secret.key_id}, "key.rotated", actor, details):
                return False
            until = secret.created + grace_s
            old = update(key_secrets).where(
                key_secrets.c.key_id == secret.key_id, func.coalesce(key_secrets.c.expires, until) >= until
            )
            connection.execute(old.values(expires=until))
            connection.execute(key_secrets.insert().values(**secret._asdict()))
            return True

        return await self._database.write(write)

    def _update(
        self,
        connection: Connection,
        key_id: str,
        values: Mapping[str, object],
        event: str,
        actor: str,
        details: JsonObject,
    ) -> bool:
        statement = update(keys).where(keys.c.id == key_id, keys.c.revoked.is_(None)).values(**values)
        if connection.execute(statement).rowcount != 1:
            return False
        self.audit.write(connection, event, actor, key_id, details)
        return True

    async def find(self, key_id: str) -> KeyRow | None:
        """Return a key, revoked ones too."""
        row = await self._database.fetch_one(select(keys).where(keys.c.id == key_id))
        return KeyRow(*row) if row else None

    async def list_keys(self, *, limit: int, before: KeyRow | None = None, account_id: str | None = None) -> Sequence[KeyRow]:
        """Return keys, the newest first: those older than `before`."""
        query = select(keys).order_by(keys.c.created.desc(), keys.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(tuple_(keys.c.created, keys.c.id) < (before.created, before.id))
        if account_id is not None:
            query = query.where(keys.c.account_id == clean_name(account_id))
        return await self._database.fetch_as(KeyRow, query)

    async def list_secrets(self, key_ids: Sequence[str]) -> Sequence[SecretRow]:
        """Return what is stored of the secrets of keys, the newest first."""
        query = select(key_secrets).where(key_secrets.c.key_id.in_(key_ids)).order_by(key_secrets.c.created.desc())
        return await self._database.fetch_as(SecretRow, query)

    async def list_good(self, now: float) -> Sequence[tuple[SecretRow, KeyRow]]:
        """Return all secrets that open anything at a time, each with its key."""
        query = (
            select(key_secrets, keys)
            .join(keys, keys.c.id == key_secrets.c.key_id)
            .where(keys.c.revoked.is_(None), func.coalesce(keys.c.expires, now + 1) > now)
            .where(func.coalesce(key_secrets.c.expires, now + 1) > now)
        )
        width = len(SecretRow._fields)
        rows = await self._database.fetch_all(query)
        return [(SecretRow(*row[:width]), KeyRow(*row[width:])) for row in rows]
