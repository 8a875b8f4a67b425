"""What is old is deleted, little by little: history by its days, answers to be given again by their hours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Delete, Table, delete, select, union_all
from sqlalchemy.exc import SQLAlchemyError

from fanout.observability.logs import log
from fanout.store.engine.database import Database, describe_error
from fanout.store.engine.tables import answers, comparison_metadata, comparisons, history_texts, idempotent_answers
from fanout.store.history.recorder import History
from fanout.store.history.records import DAY_S, first_number_at
from fanout.store.idempotency import LIFETIME_S

DEFAULT_HISTORY_DAYS = 30.0
SWEEP_INTERVAL_S = 600.0
"""From one look to the next."""
ROWS_PER_DELETE = 50
"""Comparisons, texts or answers of one transaction."""
PAUSE_S = 0.05
"""Between two transactions: others want to write, too."""
MAX_COMPARISONS_IN_MEMORY = 1_000
"""Comparisons in a database that is no file, however young."""
POLL_INTERVAL_S = 1.0
"""How often a database in memory is looked at."""


class Retention:
    """Deletes while it lasts."""

    def __init__(self, database: Database, history: History, history_days: float) -> None:
        self._database, self._history, self._days = database, history, history_days
        self._closing = asyncio.Event()
        self._failing = False

    @asynccontextmanager
    async def deleting(self) -> AsyncGenerator[None]:
        """Deletes what is old, now and then."""
        task = asyncio.create_task(self._delete_always(), name="retention")
        try:
            yield
        finally:
            self._closing.set()  # not cancelled: a statement that is cut off takes its connection with it
            await task

    async def _delete_always(self) -> None:
        seen, next_look = 0, 0.0
        while await self._rested(POLL_INTERVAL_S):
            crowded = self._database.in_memory and self._history.written - seen > MAX_COMPARISONS_IN_MEMORY // 10
            if not crowded and time.monotonic() < next_look:
                continue
            seen, next_look = self._history.written, time.monotonic() + SWEEP_INTERVAL_S
            try:
                await self.delete_old()
            except (SQLAlchemyError, OSError) as error:
                if not self._failing:
                    sentence = "what is old cannot be deleted; it is tried again"
                    log.error(sentence, database=self._database.name, reason=describe_error(error))
                self._failing = True
            else:
                self._failing = False

    async def _rested(self, seconds: float) -> bool:
        """Whether there is more to do after a pause."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()

    async def delete_old(self) -> None:
        """Deletes all that is old now."""
        now = time.time()
        await self._repeated(_those(idempotent_answers, idempotent_answers.c.created < now - LIFETIME_S))
        if self._days:
            oldest_s = now - self._days * DAY_S
            await self._forget(first_number_at(oldest_s))
            await self._repeated(_those(history_texts, history_texts.c.day < int(oldest_s // DAY_S)))
        if self._database.in_memory:
            await self._forget(await self._first_of_the_newest())
            await self._repeated(_those(history_texts, history_texts.c.digest.not_in(_mentioned())))

    async def _first_of_the_newest(self) -> int:
        numbers = comparisons.c.number
        async with self._database.reading() as connection:
            asked = select(numbers).order_by(numbers.desc()).offset(MAX_COMPARISONS_IN_MEMORY - 1).limit(1)
            return await connection.scalar(asked) or 0

    async def _forget(self, before: int) -> None:
        """Deletes the comparisons of lower numbers."""
        numbers = comparisons.c.number
        oldest = select(numbers).where(numbers < before).order_by(numbers).limit(ROWS_PER_DELETE)
        columns = (answers.c.comparison, comparison_metadata.c.comparison, numbers)
        going_on = True
        while going_on:
            async with self._database.writing() as connection:
                some = (await connection.scalars(oldest)).all()
                if not some:
                    return
                for column in columns:
                    await connection.execute(delete(column.table).where(column <= some[-1]))
            going_on = await self._rested(PAUSE_S)

    async def _repeated(self, some: Delete) -> None:
        going_on = True
        while going_on:
            async with self._database.writing() as connection:
                going_on = bool((await connection.execute(some)).rowcount)
            going_on = going_on and await self._rested(PAUSE_S)


def _those(table: Table, old: ColumnElement[bool]) -> Delete:
    """Deletes some of a table's rows that are old."""
    (key,) = table.primary_key
    # Asked again of each row: another process may renew one while its lock is waited for.
    return delete(table).where(key.in_(select(key).where(old).limit(ROWS_PER_DELETE)), old)


def _mentioned() -> CompoundSelect[Any]:
    """The digests of texts that a comparison has."""
    columns = (comparisons.c.request_digest, answers.c.said_digest)
    return union_all(*(select(column).where(column.is_not(None)) for column in columns))
