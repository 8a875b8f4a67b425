"""Who used which model how much: counted as calls end, written every half second, added up on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.core.schema import Failure, Outcome, Retry
from fanout.core.usage import UsageTotals, plausible_usage, plausible_usd
from fanout.observability.logs import log
from fanout.store.engine.database import Database, describe_error
from fanout.store.engine.tables import usage as table
from fanout.store.engine.text_columns import clean_name
from fanout.store.usage.sums import ANSWERED, Sum, UsageFilter, UsageKey

FLUSH_S = 0.5
"""From a call's end to its writing; with the writing itself a crash loses less than the last second."""
FINAL_WRITE_TIMEOUT_S = 5.0
"""How long the last figures are tried to be written at the end."""
MAX_COUNTERS = 10_000
"""Callers choose names: past so many counters that wait to be written, further names are counted as `REST`."""
REST = "(rest)"
ROWS_AT_ONCE = 32
"""As many take the event loop for less than a millisecond."""


class UsageLedger:
    """Counts calls (`observe`, an observer of the Dispatcher) and keeps the counts in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[UsageKey, UsageTotals] = {}
        """What is not written yet."""
        self._waiting = asyncio.Event()
        """There is something to write."""
        self._closing = asyncio.Event()
        self._alone = asyncio.Lock()
        """Held while counts are on their way into the database."""
        self._reports: set[asyncio.Task[list[Sum]]] = set()
        self._add = database.add(table)
        self._failing = False

    def observe(self, event: Outcome | Retry) -> None:
        """One call has ended."""
        if isinstance(event, Retry):
            return
        call, result = event.call, event.result
        target = call.target
        key = UsageKey(
            int(time.time()) // 60 * 60,
            call.account_id or "",
            target.name,
            target.provider or "",
            target.model or "",
            result.kind if isinstance(result, Failure) else ANSWERED,
        )
        counts = self._counts.get(key) or self._new(key)
        if isinstance(result, Failure):
            counts.add_failure()
        else:
            counts.add_answer(plausible_usage(result.usage), plausible_usd(event.cost))

    def _new(self, key: UsageKey) -> UsageTotals:
        """The counts of a key that is new here, or of what it must be counted as."""
        self._waiting.set()
        key = UsageKey(key.minute, *map(clean_name, key[1:]))
        if key not in self._counts and len(self._counts) >= MAX_COUNTERS:
            oldest = next(iter(self._counts)).minute
            key = UsageKey(oldest, REST, REST, key.provider, REST, key.result)
        return self._counts.setdefault(key, UsageTotals())

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes what is counted while it lasts, and the last of it at its end."""
        with suppress(SQLAlchemyError, OSError):
            await self._warm()
        task = asyncio.create_task(self._write_always(), name="usage")
        try:
            yield
        finally:
            self._closing.set()
            self._waiting.set()
            await task
            await asyncio.gather(*self._reports, return_exceptions=True)

    async def _write_always(self) -> None:
        while not self._closing.is_set():
            await self._waiting.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._closing.wait()
            if self._counts:
                await self._written()
        began = time.monotonic()
        while self._counts and not await self._written():
            if time.monotonic() - began > FINAL_WRITE_TIMEOUT_S:
                lost = sum(counts.calls for counts in self._counts.values())
                log.error("usage is lost: it could not be written before the end", database=self._database.name, calls=lost)
                return
            await asyncio.sleep(FLUSH_S)

    async def _written(self) -> bool:
        """Writes all that is counted, or keeps it where that fails; the first failure and the end of it are logged."""
        try:
            # The connection first, then the lock: whoever reads takes both in the same order, and in memory there is but one.
            async with self._database.writing() as connection, self._alone:
                await self._write(connection)
        except (SQLAlchemyError, OSError) as error:
            if not self._failing:
                sentence = "usage cannot be written; it is kept in memory and tried again"
                log.error(sentence, database=self._database.name, reason=describe_error(error))
            self._failing = True
            return False
        if self._failing:
            log.info("usage is written again", database=self._database.name)
        self._failing = False
        return True

    async def _write(self, connection: AsyncConnection) -> None:
        self._waiting.clear()
        counts, self._counts = self._counts, {}
        # In order where rows are locked one by one: two processes must not wait for each other.
        rows = iter(counts.items() if self._database.dialect == "sqlite" else sorted(counts.items()))
        try:
            while some := [_row(key, sums) for key, sums in islice(rows, ROWS_AT_ONCE)]:
                await connection.execute(self._add, some)
            await connection.commit()
        except BaseException:
            self._keep(counts)
            raise

    def _keep(self, counts: dict[UsageKey, UsageTotals]) -> None:
        """Takes back what could not be written; what has been counted since comes on top."""
        newer, self._counts = self._counts, counts
        for key, more in newer.items():
            (self._counts.get(key) or self._new(key)).add(more)
        self._waiting.set()

    async def _warm(self) -> None:
        """Has the statements compiled before anything is served: each would hold the event loop for 2 ms."""
        nothing = _row(UsageKey(0, "", "", "", "", ""), UsageTotals())
        async with self._database.writing() as connection:
            for rows in ([nothing], [nothing, nothing]):  # one statement for one row, another for several
                await connection.execute(self._add, rows)
            await connection.rollback()
        await self._report(UsageFilter(0, 0))

    async def report(self, question: UsageFilter) -> list[Sum]:
        """The sums that are asked for, sorted by their groups; every call once, whether written yet or not.

        Raises:
            StoreError: the database cannot be read.
        """
        # A task of its own: whoever asked may leave, and a statement that is cut off takes its connection with it.
        report = asyncio.create_task(self._report(question), name="usage report")
        self._reports.add(report)
        report.add_done_callback(self._reported)
        try:
            return await asyncio.shield(report)
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(describe_error(error)) from error

    def _reported(self, report: asyncio.Task[list[Sum]]) -> None:
        self._reports.discard(report)
        if not report.cancelled():
            report.exception()  # or asyncio complains where nobody waited for it any more

    async def _report(self, question: UsageFilter) -> list[Sum]:
        if question.account_id is not None:
            question = replace(question, account_id=clean_name(question.account_id))
        sums: dict[tuple[Any, ...], Sum] = {}

        def add(group: tuple[Any, ...], result: str, counts: UsageTotals) -> None:
            if group not in sums:
                if len(sums) >= question.most:
                    return
                sums[group] = Sum(dict(zip(question.group_by, group, strict=True)))
            sums[group].add(result, counts)

        width = len(question.group_by)
        async with self._snapshot(question) as (connection, unwritten):
            found = await connection.stream(question.select())
            async for rows in found.partitions(ROWS_AT_ONCE):
                for row in rows:
                    add(tuple(row[:width]), row[width], UsageTotals(*row[width + 1 :]))
        for key, counts in unwritten.items():
            add(question.group(key), key.result, counts)
        return [sums[group] for group in sorted(sums)]

    @asynccontextmanager
    async def _snapshot(self, question: UsageFilter) -> AsyncGenerator[tuple[AsyncConnection, Mapping[UsageKey, UsageTotals]]]:
        """A transaction that sees all that is written, and a copy of what is not."""
        async with self._database.reading() as connection:
            async with self._alone:
                await connection.execute(select(table.c.minute).limit(1))  # what it sees now, it will see to its end
                unwritten = {key: replace(counts) for key, counts in self._counts.items() if question.takes(key)}
            yield connection, unwritten


def _row(key: UsageKey, sums: UsageTotals) -> dict[str, Any]:
    return key._asdict() | sums.as_columns()
