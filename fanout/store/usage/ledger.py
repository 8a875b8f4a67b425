"""The usage ledger: calls are counted as they end, written every half second, and summed on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import islice

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.core.schema import Failure, Outcome, Retry
from fanout.core.usage import UsageTotals, plausible_usage, plausible_usd
from fanout.store.engine.database import Database
from fanout.store.engine.text_columns import clean_name
from fanout.store.engine.transactions import run_to_end
from fanout.store.engine.write_behind import WriteBehind
from fanout.store.usage.sums import ANSWERED, Group, GroupUsage, UsageFilter, UsageKey
from fanout.store.usage.tables import usage

MAX_COUNTERS = 10_000
"""Callers choose names: beyond so many counters that wait to be written, further names are counted as `REST`."""
REST = "(rest)"
ROWS_AT_ONCE = 32
"""So many rows hold the event loop for less than a millisecond."""


class UsageLedger:
    """The usage of accounts and models. Its `observe` is an observer of the Dispatcher."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[UsageKey, UsageTotals] = {}
        """What is not written yet."""
        self._lock = asyncio.Lock()
        """Held while totals are on their way into the database, so that a report sees each of them exactly once."""
        self._add = database.insert_or_add(usage)
        self._writer = WriteBehind("usage", database.name, self._write_waiting, self._count_waiting)

    def observe(self, event: Outcome | Retry) -> None:
        """Count a call that has ended."""
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
        # The key as it came: cleaning is needed only for one that has no counter yet.
        totals = self._waiting.get(key) or self._start_counter(key)
        if isinstance(result, Failure):
            totals.add_failure()
        else:
            totals.add_answer(plausible_usage(result.usage), plausible_usd(event.cost))

    def _start_counter(self, key: UsageKey) -> UsageTotals:
        """Return the totals of a key that may be new, or of the key that it must be counted as."""
        self._writer.notify()
        key = UsageKey(key.minute, *map(clean_name, key[1:]))
        if key not in self._waiting and len(self._waiting) >= MAX_COUNTERS:
            oldest = next(iter(self._waiting)).minute
            key = UsageKey(oldest, REST, REST, key.provider, REST, key.result)
        return self._waiting.setdefault(key, UsageTotals())

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        with suppress(StoreError):
            await self._compile_statements()
        async with self._writer.run():
            yield

    async def _compile_statements(self) -> None:
        """Have the statements compiled before anything is served: each would hold the event loop for 2 ms."""
        nothing = _to_row(UsageKey(0, "", "", "", "", ""), UsageTotals())
        async with self._database.write_transaction() as connection:
            for rows in ([nothing], [nothing, nothing]):  # one statement for one row, another for several
                await connection.execute(self._add, rows)
            await connection.rollback()
        await self.report(UsageFilter(0, 0))

    def _count_waiting(self) -> int:
        return sum(totals.calls for totals in self._waiting.values())

    async def _write_waiting(self) -> None:
        if not self._waiting:
            return
        # The connection first, then the lock: reports take both in the same order, and in memory there is one connection.
        async with self._database.write_transaction() as connection, self._lock:
            await self._write(connection)

    async def _write(self, connection: AsyncConnection) -> None:
        waiting, self._waiting = self._waiting, {}
        # Sorted where rows are locked one by one, so that two processes never wait for each other.
        rows = iter(waiting.items() if self._database.dialect == "sqlite" else sorted(waiting.items()))
        try:
            while some := [_to_row(key, totals) for key, totals in islice(rows, ROWS_AT_ONCE)]:
                await connection.execute(self._add, some)
            await connection.commit()  # here, not at the end of the block: a commit that fails must give the totals back
        except BaseException:
            self._take_back(waiting)
            raise

    def _take_back(self, unwritten: dict[UsageKey, UsageTotals]) -> None:
        """Keep what could not be written, and add what has been counted since."""
        newer, self._waiting = self._waiting, unwritten
        for key, more in newer.items():
            (self._waiting.get(key) or self._start_counter(key)).add(more)

    @run_to_end
    async def report(self, filter_: UsageFilter) -> list[GroupUsage]:
        """Return the usage by group, sorted by the groups. Every call is in it once, whether written yet or not.

        Raises:
            StoreError: the database cannot be read.
        """
        if filter_.account_id is not None:
            filter_ = replace(filter_, account_id=clean_name(filter_.account_id))
        found: dict[Group, GroupUsage] = {}

        def add(group: Group, result: str, totals: UsageTotals) -> None:
            if group not in found:
                if len(found) >= filter_.limit:
                    return
                found[group] = GroupUsage(dict(zip(filter_.group_by, group, strict=True)))
            found[group].add(result, totals)

        width = len(filter_.group_by)
        async with self._snapshot(filter_) as (connection, unwritten):
            written = await connection.stream(filter_.select())
            async for rows in written.partitions(ROWS_AT_ONCE):
                for row in rows:
                    add(tuple(row[:width]), row[width], UsageTotals(*row[width + 1 :]))
        for key, totals in unwritten.items():
            add(filter_.find_group(key), key.result, totals)
        return [found[group] for group in sorted(found)]

    @asynccontextmanager
    async def _snapshot(self, filter_: UsageFilter) -> AsyncGenerator[tuple[AsyncConnection, Mapping[UsageKey, UsageTotals]]]:
        """Open a transaction that sees all that is written, with a copy of what is not."""
        async with self._database.read_transaction() as connection:
            async with self._lock:
                await connection.execute(select(usage.c.minute).limit(1))  # what it sees now, it sees to its end
                unwritten = {key: replace(totals) for key, totals in self._waiting.items() if filter_.matches(key)}
            yield connection, unwritten


def _to_row(key: UsageKey, totals: UsageTotals) -> Mapping[str, object]:
    return key._asdict() | totals.as_columns()
