"""The usage ledger: calls are counted as they end, written every half second, and summed on request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, cast, func, select

from fanout.core.errors import StoreError
from fanout.core.schema import Failure, Outcome, Retry
from fanout.core.usage import USAGE_SUMS, UsageTotals, plausible_usage, plausible_usd
from fanout.store.engine.database import Database, Query, run_to_end
from fanout.store.engine.text_columns import clean_name
from fanout.store.engine.writers import WriteBehind
from fanout.store.tables import usage

ANSWERED = "answered"
MAX_COUNTERS = 10_000
"""Callers choose names: beyond so many counters that wait to be written, further names are counted as `REST`."""
REST = "(rest)"
ROWS_AT_ONCE = 32
"""So many rows hold the event loop for less than a millisecond."""
DIMENSIONS: Mapping[str, int] = {"account_id": 0, "model": 0, "provider": 0, "upstream_model": 0, "day": 86_400, "hour": 3_600}
"""Names to group usage by; for a period, its length in seconds."""
Group = tuple[int | str, ...]
"""The values that a group of calls has in common, in the order of `group_by`."""


class UsageKey(NamedTuple):
    """The key of a counter: the primary key of the table, in its order."""

    minute: int
    account_id: str
    model: str
    provider: str
    upstream_model: str
    result: str


@dataclass(slots=True)
class GroupUsage:
    """The usage of all calls of one group."""

    group: Mapping[str, int | str]
    """Its values by dimension; `day` and `hour` in Unix seconds of their start."""
    totals: UsageTotals = field(default_factory=UsageTotals)
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """Calls by the failure's kind."""

    def add(self, result: str, totals: UsageTotals) -> None:
        """Add calls that ended alike."""
        self.totals.add(totals)
        if result == ANSWERED:
            self.answered += totals.calls
        else:
            self.failures[result] = self.failures.get(result, 0) + totals.calls


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """The calls to report, and their groups."""

    since: int
    """The first minute, in Unix seconds of its start."""
    until: int
    """The minute after the last one."""
    account_id: str | None = None
    """One account's; empty: calls without an account; `None`: all."""
    group_by: tuple[str, ...] = ("account_id", "model")
    limit: int = 10_000
    """The largest number of groups; further ones are left out."""

    def matches(self, key: UsageKey) -> bool:
        """Return whether these calls are to be reported."""
        return self.since <= key.minute < self.until and self.account_id in (None, key.account_id)

    def find_group(self, key: UsageKey) -> Group:
        """Return the group of these calls."""
        return tuple(
            key.minute // period * period if (period := DIMENSIONS[name]) else getattr(key, name) for name in self.group_by
        )

    def select(self) -> Query:
        """Return the query: a row for each group and result, with the sums."""
        groups: list[ColumnElement[Any]] = [
            (usage.c.minute // period * period).label(name) if (period := DIMENSIONS[name]) else usage.c[name]
            for name in self.group_by
        ]
        sums = [func.sum(usage.c[name]) for name in USAGE_SUMS]
        # The cast, because PostgreSQL's SUM() of bigint is a decimal number.
        typed = [cast(total, BigInteger) if name != "cost_usd" else total for name, total in zip(USAGE_SUMS, sums, strict=True)]
        query = select(*groups, usage.c.result, *typed).where(usage.c.minute >= self.since, usage.c.minute < self.until)
        if self.account_id is not None:
            query = query.where(usage.c.account_id == self.account_id)
        return query.group_by(*groups, usage.c.result).order_by(*groups)


class UsageLedger:
    """The usage of accounts and models. Its `observe` is an observer of the Dispatcher."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[UsageKey, UsageTotals] = {}
        # Held while totals are on their way into the database, so that a report sees each of them exactly once.
        self._lock = asyncio.Lock()
        self._add = database.insert_or_add(usage)
        self._writer = WriteBehind("usage", database.name, self._write_waiting, self._count_waiting)

    def observe(self, event: Outcome | Retry) -> None:
        """Count a call that has ended."""
        if isinstance(event, Retry):
            return
        target, result = event.call.target, event.result
        model, upstream_model = target.listed_as or target.name, target.model or ""
        # Callers can invent any number of names; those that exist have an entry or an answer.
        if isinstance(result, Failure) and target.listed_as is None:
            model = upstream_model = ""
        key = UsageKey(
            int(time.time()) // 60 * 60,
            event.call.account_id or "",
            model,
            target.provider or "",
            upstream_model,
            result.kind if isinstance(result, Failure) else ANSWERED,
        )
        # The key as it came: this runs for every call, and cleaning is needed only for a key that has no counter yet.
        totals = self._waiting.get(key) or self._start_counter(key)
        if isinstance(result, Failure):
            totals.add_failure()
        else:
            totals.add_answer(plausible_usage(result.usage), plausible_usd(event.cost))

    def _start_counter(self, key: UsageKey) -> UsageTotals:
        self._writer.notify()
        key = UsageKey(key.minute, *map(clean_name, key[1:]))
        # Bounded, because callers can invent names faster than a database that cannot be written takes them.
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
        # Before anything is served: compiling each of them holds the event loop for 2 ms.
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
            waiting, self._waiting = self._waiting, {}
            # Sorted where rows are locked one by one, so that two processes never wait for each other.
            rows = iter(waiting.items() if self._database.dialect == "sqlite" else sorted(waiting.items()))
            try:
                while some := [_to_row(key, totals) for key, totals in islice(rows, ROWS_AT_ONCE)]:
                    await connection.execute(self._add, some)
                await connection.commit()  # here, not at the end of the block: a commit that fails must give the totals back
            except BaseException:
                # What could not be written is kept, and what has been counted since is added to it.
                newer, self._waiting = self._waiting, waiting
                for key, more in newer.items():
                    (self._waiting.get(key) or self._start_counter(key)).add(more)
                raise

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
        async with self._database.read_transaction() as connection:
            # Under the lock nothing is both written and waiting, and what the transaction sees now, it sees to its end.
            async with self._lock:
                await connection.execute(select(usage.c.minute).limit(1))
                unwritten = {key: replace(totals) for key, totals in self._waiting.items() if filter_.matches(key)}
            written = await connection.stream(filter_.select())
            async for rows in written.partitions(ROWS_AT_ONCE):
                for row in rows:
                    add(tuple(row[:width]), row[width], UsageTotals(*row[width + 1 :]))
        for key, totals in unwritten.items():
            add(filter_.find_group(key), key.result, totals)
        return [found[group] for group in sorted(found)]


def _to_row(key: UsageKey, totals: UsageTotals) -> Mapping[str, object]:
    return key._asdict() | totals.as_columns()
