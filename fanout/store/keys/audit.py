"""The record of who changed what, when. Its rows are never changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from fanout.core.json_text import JsonObject, encode_json
from fanout.store.engine.database import Database, run_to_end
from fanout.store.key_tables import audit

_NEWEST = select(func.max(audit.c.number))


class AuditRow(NamedTuple):
    """A change: the columns of its table, in their order."""

    number: int
    time: float
    event: str
    """`key.created`, `key.changed`, `key.rotated`, `key.revoked`, …"""
    actor: str
    """Who did it: the id of a key, `environment:ACCOUNT`, `local` (a server without keys) or `command line`."""
    subject: str
    """Id of what was changed."""
    details: str
    """JSON: what it is now."""


class AuditLog:
    """The changes in a database. Every method raises `StoreError` if the database cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @run_to_end
    async def record(self, event: str, actor: str, subject: str, details: JsonObject) -> None:
        """Add a change."""
        await self._database.write(lambda connection: self.write(connection, event, actor, subject, details))

    def write(self, connection: Connection, event: str, actor: str, subject: str, details: JsonObject) -> None:
        """Add a change in a transaction, so that it is recorded exactly if it is made."""
        self._database.lock_for_insert(connection, audit)
        values = {"event": event, "actor": actor, "subject": subject, "details": encode_json(details).decode()}
        connection.execute(audit.insert().values(time=time.time(), **values))

    async def find_newest(self) -> int:
        """Return the number of the newest change; 0: there is none."""
        return int(await self._database.peek(_NEWEST) or 0)

    async def list_changes(self, *, limit: int, before: int | None = None, subject: str | None = None) -> Sequence[AuditRow]:
        """Return changes, the newest first: those numbered below `before`."""
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        return await self._database.fetch_as(AuditRow, query)
