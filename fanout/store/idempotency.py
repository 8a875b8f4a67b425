"""Answers to requests with an `Idempotency-Key`, kept for a day to be replayed: in the database, or in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, bindparam, select

from fanout.core.errors import StoreError
from fanout.store.engine.database import Database
from fanout.store.engine.writers import GroupCommit
from fanout.store.tables import idempotent_answers

MAX_MEMORY_BYTES = 32 * 2**20
OVERHEAD_BYTES = 1024
"""Of an answer in memory beside its body: headers, keys and the objects themselves."""
LIFETIME_S = 86_400.0


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A complete answer. `fingerprint` is the SHA-256 of its request's body."""

    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: bytes
    created: float

    @property
    def is_fresh(self) -> bool:
        return time.time() - self.created < LIFETIME_S


class IdempotencyStore:
    """The answers to be replayed, by scope: a digest of the key and whose it is.

    Every method raises `StoreError` if the database cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commit: GroupCommit[tuple[bytes, StoredAnswer]] = GroupCommit(database, self._write)
        # Of two processes that answered the same key, the first one's answer stays.
        is_expired = idempotent_answers.c.created < bindparam("expired")
        self._insert = database.insert_or_replace(idempotent_answers, where=is_expired)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background."""
        async with self._commit.run():
            yield

    async def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        """Return once the answer is on disk. An earlier one that is still fresh stays instead."""
        await self._commit.put((scope, answer))

    async def find(self, scope: bytes) -> StoredAnswer | None:
        """Return the fresh answer of that scope."""
        row = await self._database.fetch_one(select(idempotent_answers).where(idempotent_answers.c.scope == scope))
        if row is None:
            return None
        answer = StoredAnswer(row.fingerprint, row.status, from_json(row.headers), row.body, row.created)
        return answer if answer.is_fresh else None

    def _write(self, connection: Connection, answers: Sequence[tuple[bytes, StoredAnswer]]) -> Sequence[StoreError | None]:
        # Sorted, so that two processes never wait for each other's rows.
        for scope, answer in sorted(answers, key=lambda each: each[0]):
            row = {**asdict(answer), "scope": scope, "headers": to_json(answer.headers).decode()}
            connection.execute(self._insert, {**row, "expired": answer.created - LIFETIME_S})
        return [None] * len(answers)


class RecentAnswers:
    """Answers in memory, for servers without a database, and for the time in which it cannot be written.

    The oldest are dropped once all together exceed `MAX_MEMORY_BYTES`.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, StoredAnswer] = OrderedDict()
        self._size_bytes = 0

    def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        """Add an answer, in place of an older one to the same key."""
        self._drop(scope)
        self._answers[scope] = answer
        self._size_bytes += _size(answer)
        while self._size_bytes > MAX_MEMORY_BYTES:
            self._drop(next(iter(self._answers)))

    def find(self, scope: bytes) -> StoredAnswer | None:
        """Return the answer to a key, unless it has expired."""
        answer = self._answers.get(scope)
        return answer if answer and answer.is_fresh else None

    def _drop(self, scope: bytes) -> None:
        if answer := self._answers.pop(scope, None):
            self._size_bytes -= _size(answer)


def _size(answer: StoredAnswer) -> int:
    return len(answer.body) + OVERHEAD_BYTES
