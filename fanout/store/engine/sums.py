"""Tables of sums: counted in memory at once, added to the database soon, and read with what waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar

from sqlalchemy import Connection, Table, select

from fanout.store.engine.bulk_insert import insert_rows
from fanout.store.engine.database import Database
from fanout.store.engine.writers import WriteBehind

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncConnection

MAX_ROWS = 10_000
"""Callers choose names: beyond counters of so many rows that wait to be written, further names are counted as `REST`."""
WRITE_INTERVAL_S = 0.65
"""Time until they are written by themselves: longer than the history's, which takes them along where it has something to write.

Each transaction costs half a millisecond and a flush to disk.
"""
MAX_TAKEN_ALONG = 500
"""Rows that another transaction takes along, at most: they take 2.5 ms (2026-11-28)."""
REST = "(rest)"
ROWS_AT_ONCE = 32
"""So many rows hold the event loop for less than a millisecond."""


class Sums(Protocol):
    """The figures of one key."""

    @property
    def calls(self) -> int: ...

    def add(self, more: Self) -> None:
        """Add the figures of other calls."""


Key = TypeVar("Key", bound=NamedTuple)
Total = TypeVar("Total", bound=Sums)


class Counters(dict[Any, Total]):
    """Counters by key, each of which is started when it is looked up."""

    def __init__(self, start: Callable[[Any], Total]) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, key: Any) -> Total:
        return self._start(key)


class SumsTable(Generic[Key, Total]):
    """A table of sums by key, and the counters that wait to be added to it."""

    def __init__(
        self,
        database: Database,
        table: Table,
        *,
        key: type[Key],
        start: Callable[[], Total],
        list_rows: Callable[[Total], Sequence[tuple[int | float | None, ...]]],
        rows_each: int = 1,
        clean: Callable[[Key], Key],
        pool: Callable[[Key, Key], Key],
    ) -> None:
        """Create it; `run` starts the writing.

        Args:
            database: the store's.
            table: its columns are the fields of a key and then those of the sums.
            key: the type of its keys.
            start: makes a counter.
            list_rows: lists the rows of a counter, without their key: always in the same order.
            rows_each: how many these are where much is counted.
            clean: makes a key that the database can store.
            pool: makes the key, with `REST` for names, that counts further keys once too many wait; of it and the oldest.
        """
        self._database, self._table = database, table
        self._key, self._start, self._clean, self._pool = key, start, clean, pool
        self._list_rows, self._rows_each = list_rows, rows_each
        self.counters = Counters[Total](self._start_counter)
        """Those that wait to be written, to be added to; not to be kept beyond a step of the event loop.

        They are looked up by the fields of a key as a plain tuple, which finds the same counter: this happens for every call,
        and only a key that has no counter yet need be made and cleaned.
        """
        # Held while counters are on their way into the database, so that a report sees each of them exactly once.
        self._lock = asyncio.Lock()
        self._writer = WriteBehind(table.name, database.name, self._write_waiting, self._count_waiting, WRITE_INTERVAL_S)

    @cached_property
    def _add(self) -> str:
        return self._database.compile_insert(self._database.insert_or_add(self._table))  # no start need wait for it

    def _start_counter(self, fields: tuple[Any, ...]) -> Total:
        self._writer.notify()
        key = self._clean(self._key(*fields))
        # Bounded, because callers can invent names faster than a database that cannot be written takes them.
        if key not in self.counters and len(self.counters) >= MAX_ROWS // self._rows_each:
            key = self._pool(key, next(iter(self.counters)))
        return self.counters.setdefault(key, self._start())

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        async with self._writer.run():
            yield

    async def write(self) -> None:
        """Write now what waits, as far as that can be done."""
        await self._writer.write()

    @property
    def is_easy(self) -> bool:
        """True if another's transaction may take along what waits: it is little, and could be written."""
        return len(self.counters) * self._rows_each <= MAX_TAKEN_ALONG and not self._writer.is_failing

    def _count_waiting(self) -> int:
        return sum(total.calls for total in self.counters.values())

    async def _write_waiting(self) -> None:
        if self.counters:
            # The transaction first, then the lock: reports take both in the same order, and in memory there is one connection.
            await self._database.write_with(self.take(), self.insert)

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[Mapping[Key, Total]]:
        """Give the counters that wait, for good unless the block raises."""
        async with self._lock:
            waiting, self.counters = self.counters, Counters(self._start_counter)
            try:
                yield waiting
            except BaseException:
                # What could not be written is kept, and what has been counted since is added to it.
                newer, self.counters = self.counters, waiting
                for key, more in newer.items():
                    waiting[key].add(more)
                self._writer.notify()  # its own writer may have looked meanwhile, and found nothing
                raise
            self._writer.note_write()

    def insert(self, connection: Connection, waiting: Mapping[Key, Total]) -> None:
        """Add counters that were taken to the table."""
        # Sorted where rows are locked one by one, so that two processes never wait for each other.
        keys = waiting if self._database.dialect == "sqlite" else sorted(waiting)
        rows = ((*key, *figures) for key in keys for figures in self._list_rows(waiting[key]))
        while some := list(islice(rows, ROWS_AT_ONCE)):
            insert_rows(connection, self._add, some)

    @asynccontextmanager
    async def read(self, matches: Callable[[Key], bool]) -> AsyncGenerator[tuple[AsyncConnection, dict[Key, Total]]]:
        """Give a transaction, and copies of the counters that are not yet in what it sees; each call is in one of both."""
        await self._database.before_reading()
        async with self._database.read_transaction() as connection:
            # Under the lock nothing is both written and waiting, and what the transaction sees now, it sees to its end.
            async with self._lock:
                await connection.execute(select(self._table.c[0]).limit(1))
                unwritten = {key: copy(total) for key, total in self.counters.items() if matches(key)}
            yield connection, unwritten


@asynccontextmanager
async def take_all(
    tables: Sequence[SumsTable[Any, Any]],
) -> AsyncGenerator[list[tuple[SumsTable[Any, Any], Mapping[Any, Any]]]]:
    """Give the counters of several tables, each with its table, for good unless the block raises."""
    async with AsyncExitStack() as stack:
        yield [(table, await stack.enter_async_context(table.take())) for table in tables]
