"""Answers that are given again: by the key that their request brought, for a day."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

from pydantic_core import from_json, to_json
from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.store.engine.database import Database
from fanout.store.engine.group_commit import GroupCommit
from fanout.store.engine.reads import Readings
from fanout.store.engine.tables import idempotent_answers as table

LIFETIME_S = 86_400.0


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer, whole."""

    fingerprint: bytes
    """Of the request's body."""
    status: int
    headers: Mapping[str, str]
    body: bytes
    created: float
    """Unix seconds."""

    @property
    def valid(self) -> bool:
        return time.time() - self.created < LIFETIME_S


class IdempotencyStore:
    """Keeps answers in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group: GroupCommit[tuple[bytes, StoredAnswer]] = GroupCommit(database, self._write)
        self._readings = Readings()
        insert = database.inserting(table)
        newer = {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}
        self._insert = insert.on_conflict_do_update(
            index_elements=["scope"], set_=newer, where=table.c.created < bindparam("expired")
        )

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes while it lasts."""
        with suppress(SQLAlchemyError, OSError):
            await self._find(b"")  # compiled before anything is served
        async with self._group.writing():
            yield
        await self._readings.ended()

    async def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        """Returns once the answer is on disk; one that stands there already stays.

        Raises:
            StoreError: it cannot be written.
        """
        await self._group.put((scope, answer))

    async def find(self, scope: bytes) -> StoredAnswer | None:
        """The answer to a request that was made before.

        Raises:
            StoreError: the database cannot be read.
        """
        return await self._readings.of(self._find(scope))

    async def _find(self, scope: bytes) -> StoredAnswer | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(select(table).where(table.c.scope == scope))).one_or_none()
        if row is None:
            return None
        kept = StoredAnswer(row.fingerprint, row.status, from_json(row.headers), row.body, row.created)
        return kept if kept.valid else None

    async def _write(
        self, connection: AsyncConnection, answers: Sequence[tuple[bytes, StoredAnswer]]
    ) -> Sequence[StoreError | None]:
        for scope, kept in sorted(answers, key=lambda answer: answer[0]):  # two processes must not wait for each other
            row = {**asdict(kept), "scope": scope, "headers": to_json(kept.headers).decode()}
            await connection.execute(self._insert, {**row, "expired": kept.created - LIFETIME_S})
        return [None] * len(answers)
