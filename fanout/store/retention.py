"""Retention: old rows are deleted a few at a time, history and usage after their days, answers to be replayed after a day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import Column, ColumnElement, Delete, Table, delete, select

from fanout.core.errors import StoreError
from fanout.observability.logs import log
from fanout.store.call_times import DAYS
from fanout.store.engine.database import Database
from fanout.store.history.recorder import History
from fanout.store.history.records import DAY_S, first_number_at
from fanout.store.idempotency import LIFETIME_S
from fanout.store.tables import (
    answers,
    call_times,
    comparison_metadata,
    comparisons,
    history_texts,
    idempotent_answers,
    usage,
    votes,
)

DEFAULT_HISTORY_DAYS = 30.0
DEFAULT_USAGE_DAYS = 400.0
"""Over a year, so that a month can be compared with that of the year before."""
FIRST_SWEEP_S, SWEEP_INTERVAL_S = 1.0, 600.0
# A transaction deletes few rows, and the next one waits: others want to write, too.
ROWS_PER_DELETE = 50
PAUSE_S = 0.05


class Retention:
    """The task that deletes what is old."""

    def __init__(self, database: Database, history: History, history_days: float, usage_days: float) -> None:
        self._database, self._history, self._days, self._usage_days = database, history, history_days, usage_days
        self._closing = asyncio.Event()
        self._is_failing = False

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Delete in the background."""
        task = asyncio.create_task(self._run_sweeps(), name="retention")
        try:
            yield
        finally:
            self._closing.set()  # not cancelled: a statement that is cut off takes its connection with it
            await task

    async def _run_sweeps(self) -> None:
        pause_s = FIRST_SWEEP_S
        while await self._pause(pause_s):
            pause_s = SWEEP_INTERVAL_S
            try:
                await self.delete_old()
            except StoreError as error:  # the next sweep tries again
                if not self._is_failing:
                    log.error("retention.delete_failed", database=self._database.name, reason=str(error))
                self._is_failing = True
            else:
                self._is_failing = False

    async def _pause(self, seconds: float) -> bool:
        """Wait; return whether the store is still open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return not self._closing.is_set()

    async def delete_old(self) -> None:
        """Delete everything that is old now."""
        now = time.time()
        await self._delete_all(_delete_some(idempotent_answers, idempotent_answers.c.created < now - LIFETIME_S))
        if self._usage_days:
            await self._delete_sums(usage.c.minute, int(now - self._usage_days * DAY_S))
        await self._delete_sums(call_times.c.period, int(now - DAYS * DAY_S))
        if self._days:
            oldest_s = now - self._days * DAY_S
            await self._delete_comparisons(first_number_at(oldest_s))
            await self._delete_all(_delete_some(history_texts, history_texts.c.day < int(oldest_s // DAY_S)))
        if self._database.in_memory:  # the comparisons themselves make room for newer ones
            kept = votes.c.comparison_id.in_(self._history.ids_in_memory)
            await self._delete_all(_delete_some(votes, votes.c.drawn < now, votes.c.comparison_id.is_not(None), ~kept))

    async def _delete_sums(self, start: Column[int], before: int) -> None:
        """Delete the sums of periods that started before, each as a whole."""
        oldest = select(start).where(start < before).order_by(start).limit(ROWS_PER_DELETE)
        is_open = True
        while is_open:
            async with self._database.write_transaction() as connection:
                some = (await connection.scalars(oldest)).all()
                if not some:
                    return
                await connection.execute(delete(start.table).where(start <= some[-1]))
            is_open = await self._pause(PAUSE_S)

    async def _delete_comparisons(self, before: int) -> None:
        """Delete the comparisons with lower numbers."""
        await self._history.spread_pages(before)
        numbers = comparisons.c.number
        oldest = select(numbers).where(numbers < before).order_by(numbers).limit(ROWS_PER_DELETE)
        columns = (answers.c.comparison, comparison_metadata.c.comparison, numbers)
        is_open = True
        while is_open:
            async with self._database.write_transaction() as connection:
                some = (await connection.scalars(oldest)).all()
                if not some:
                    return
                gone = select(comparisons.c.id).where(numbers <= some[-1])
                await connection.execute(delete(votes).where(votes.c.comparison_id.in_(gone)))
                for column in columns:
                    await connection.execute(delete(column.table).where(column <= some[-1]))
            is_open = await self._pause(PAUSE_S)

    async def _delete_all(self, statement: Delete) -> None:
        """Repeat a statement until it finds nothing more to delete."""
        has_more = True
        while has_more:
            async with self._database.write_transaction() as connection:
                has_more = bool((await connection.execute(statement)).rowcount)
            has_more = has_more and await self._pause(PAUSE_S)


def _delete_some(table: Table, *is_old: ColumnElement[bool]) -> Delete:
    (key,) = table.primary_key
    # Each row is checked a second time: another process may renew one while the statement waits for its lock.
    return delete(table).where(key.in_(select(key).where(*is_old).limit(ROWS_PER_DELETE)), *is_old)
