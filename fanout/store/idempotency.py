"""Answers to requests with an `Idempotency-Key`, kept for a day to be replayed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass

from pydantic_core import from_json, to_json
from sqlalchemy import BigInteger, Column, Double, Index, LargeBinary, Table, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.store.engine.database import Database
from fanout.store.engine.group_commit import GroupCommit
from fanout.store.engine.metadata import metadata
from fanout.store.engine.text_columns import StorableText
from fanout.store.engine.transactions import run_to_end

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("scope", LargeBinary, primary_key=True),  # SHA-256 of the key, the path and the caller
    Column("created", Double, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of the body
    Column("status", BigInteger, nullable=False),
    Column("headers", StorableText, nullable=False),  # JSON
    Column("body", LargeBinary, nullable=False),
    Index("idempotent_answers_created", "created"),
)
"""Answers to requests with an `Idempotency-Key`, to be replayed."""


LIFETIME_S = 86_400.0


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A complete answer."""

    fingerprint: bytes
    """SHA-256 of the request's body."""
    status: int
    headers: Mapping[str, str]
    body: bytes
    created: float
    """Unix seconds."""

    @property
    def is_fresh(self) -> bool:
        return time.time() - self.created < LIFETIME_S


class IdempotencyStore:
    """The answers to be replayed, by scope: a digest of the key and whose it is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commit: GroupCommit[tuple[bytes, StoredAnswer]] = GroupCommit(database, self._write)
        insert = database.insert(idempotent_answers)
        columns = idempotent_answers.columns
        replacement = {column.name: insert.excluded[column.name] for column in columns if not column.primary_key}
        # Of two processes that answered the same key, the first one's answer stays.
        self._insert = insert.on_conflict_do_update(
            index_elements=["scope"], set_=replacement, where=columns.created < bindparam("expired")
        )

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background."""
        with suppress(StoreError):
            await self.find(b"")  # compiles the statement before anything is served
        async with self._commit.run():
            yield

    async def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        """Return once the answer is on disk. An earlier one that is still fresh stays instead.

        Raises:
            StoreError: it cannot be written.
        """
        await self._commit.put((scope, answer))

    @run_to_end
    async def find(self, scope: bytes) -> StoredAnswer | None:
        """Return the fresh answer of that scope.

        Raises:
            StoreError: the database cannot be read.
        """
        query = select(idempotent_answers).where(idempotent_answers.c.scope == scope)
        async with self._database.read_transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        answer = StoredAnswer(row.fingerprint, row.status, from_json(row.headers), row.body, row.created)
        return answer if answer.is_fresh else None

    async def _write(
        self, connection: AsyncConnection, answers: Sequence[tuple[bytes, StoredAnswer]]
    ) -> Sequence[StoreError | None]:
        # Sorted, so that two processes never wait for each other's rows.
        for scope, answer in sorted(answers, key=lambda each: each[0]):
            row = {**asdict(answer), "scope": scope, "headers": to_json(answer.headers).decode()}
            await connection.execute(self._insert, {**row, "expired": answer.created - LIFETIME_S})
        return [None] * len(answers)
