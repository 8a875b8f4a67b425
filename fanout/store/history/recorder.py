"""The history of interactive comparisons: taken as they end, written soon, readable at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any, Literal

from fanout.core.errors import StoreError
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.store.engine.database import Database
from fanout.store.engine.sums import SumsTable
from fanout.store.engine.writers import WriteBehind
from fanout.store.history import queries
from fanout.store.history.pages import KeptComparison, decode_comparison, encode_facts
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.records import (
    RANDOM_BITS,
    ComparisonRecord,
    ComparisonRows,
    StoredComparison,
    first_number_at,
)
from fanout.store.history.rows import to_rows
from fanout.store.history.writing import BUSY, HistoryTables

HistoryMode = Literal["off", "usage", "full"]
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64 * 2**20
"""Comparisons that wait to be written, and their size; any more are dropped."""
MAX_IN_MEMORY, MAX_BYTES_IN_MEMORY = 1_000, 16 * 2**20
"""Comparisons of a store in memory, and their size; the oldest make room for new ones."""
MAX_COMPARISONS_PER_WRITE, MAX_BYTES_PER_WRITE = 128, 4 * 2**20
"""Limits of one transaction: others want to write, too."""
MAX_IN_PAGES_PER_WRITE = 1024
"""The same of comparisons that go into pages, which take a tenth of the time."""
MAX_TURN_S = 0.0005
"""How long the event loop is held at once."""
FRESH = 32
"""Comparisons whose rows are made together, in about as long."""
FRESH_BYTES = 16 * 1024
"""The size of a comparison whose rows are made at once."""
THREAD_BYTES = 128 * 1024
"""The size of a comparison from which its digests and JSON are made in a thread."""
ROW_BYTES = 1024
"""The memory that an answer's row takes without texts, roughly."""
MAX_ROWS_AT_ONCE = 128
"""Answers whose rows are made at once, in about a third of a millisecond."""


@dataclass(slots=True)
class _Pending:
    """A comparison that is not written yet."""

    number: int
    id: str
    size_bytes: int
    record: ComparisonRecord | None  # until its rows are made: of two forms of a long answer only one is kept in memory
    rows: KeptComparison | None = None

    def decode(self) -> ComparisonRows | None:
        """Return its rows, if they are made."""
        return None if self.rows is None else decode_comparison(self.rows)


SIZE = attrgetter("size_bytes")


class _LoopYielder:
    """Yields to the event loop during long work."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def yield_if_due(self) -> None:
        if time.perf_counter() - self._began > MAX_TURN_S:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


class History:
    """The comparisons of a database. `record` never waits; its readers raise `StoreError` if the database cannot be read."""

    def __init__(self, database: Database, mode: HistoryMode, sums: Sequence[SumsTable[Any, Any]] = ()) -> None:
        """Create it; `run` starts the writing, which takes along what waits in `sums`."""
        self.mode = mode
        self._database, self._sums = database, sums
        self._pending: dict[int, _Pending] = {}  # by number, in the order in which they ended
        self._fresh: list[_Pending] = []
        """Of these, the newest, whose rows are not made yet."""
        self._bytes = 0
        self._dropped = 0
        self._random = random.getrandbits(RANDOM_BITS)
        self._writer = WriteBehind("history", database.name, self._write_pending, lambda: len(self._pending))
        self._tables = HistoryTables(database)

    def create_number(self, created: float) -> int:
        """Return a number for a comparison of this moment (Unix seconds) that no other one has."""
        self._random = (self._random + 1) % (1 << RANDOM_BITS)
        return first_number_at(created) + self._random

    def record(self, record: ComparisonRecord) -> None:
        """Take a comparison that has ended; drop it if too much waits to be written."""
        # Without texts its rows are small, whatever its answers are.
        answers, in_memory = len(record.outcomes), self._database.in_memory
        is_small = self.mode != "full" and len(record.body) <= THREAD_BYTES and answers <= MAX_ROWS_AT_ONCE
        if not is_small:
            record = record.without_numbers()
        size = ROW_BYTES * answers if is_small else record.size_bytes
        if in_memory:
            self._make_room(size)
        # Bounded, because a database that cannot be written must not fill the memory of a server.
        elif len(self._pending) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            if not self._dropped:
                log.error("history.overflowed", database=self._database.name, waiting=len(self._pending))
            self._dropped += 1
            return
        if is_small:
            # In memory they are read often, and never written.
            rows = to_rows(record, full=False) if in_memory else encode_facts(record)
            pending = _Pending(record.number, record.id, size, None, rows)
        else:
            pending = _Pending(record.number, record.id, size, record)
        self._pending[record.number] = pending
        self._bytes += size
        self._writer.notify()
        if is_small:
            return
        self._fresh.append(pending)
        if len(self._fresh) >= FRESH or size > FRESH_BYTES:
            self._make_rows()

    def _make_rows(self) -> None:
        """Make the rows of the comparisons that have just ended, so that their answers need not be kept until a write."""
        # Together: one after each request took twice as long, since its code had left the caches (2026-11-27).
        fresh, self._fresh = self._fresh, []
        for pending in fresh:
            if pending.record is not None and pending.size_bytes <= THREAD_BYTES:
                self._keep_rows(pending, to_rows(pending.record, full=self.mode == "full"))

    def _make_room(self, size_bytes: int) -> None:
        while self._pending and (len(self._pending) >= MAX_IN_MEMORY or self._bytes + size_bytes > MAX_BYTES_IN_MEMORY):
            self._bytes -= self._pending.pop(next(iter(self._pending))).size_bytes

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        with suppress(StoreError):
            await self._tables.count_pages()
        async with self._writer.run():
            yield

    async def write(self) -> None:
        """Write now what waits, as far as that can be done."""
        await self._writer.write()

    async def _write_pending(self) -> None:
        if self._database.in_memory:
            # They are the history: written to tables of the same process, they would only cost more (40 µs each).
            await self._prepare_all()
            return
        is_busy = len(self._pending) >= BUSY
        most = MAX_IN_PAGES_PER_WRITE if is_busy else MAX_COMPARISONS_PER_WRITE
        left = len(self._pending)  # what ends meanwhile waits for the next write: few at once cost as much as many
        # In one transaction, unless the last one failed: what cannot be written must not hold up anything else.
        sums = [] if self._writer.is_failing else [table for table in self._sums if table.is_easy]
        while left > 0:
            some = await self._prepare_next(min(most, left))
            await self._tables.write(some, sums, is_busy=is_busy)
            sums = []
            # Only after the commit: what could not be written stays, and is tried again.
            self._bytes -= sum(map(SIZE, map(self._pending.pop, some)))
            left -= len(some)
            if self._dropped:
                log.info("history.overflow_ended", database=self._database.name, lost=self._dropped)
                self._dropped = 0
        if await self._tables.rest():
            self._writer.notify()

    async def _prepare_next(self, most: int) -> dict[int, KeptComparison]:
        """Return the oldest by their numbers, as many as fit into one transaction."""
        self._make_rows()
        some: dict[int, KeptComparison] = {}
        size_left = MAX_BYTES_PER_WRITE
        for pending in list(islice(self._pending.values(), most)):  # a copy, because others end while rows are made
            some[pending.number] = pending.rows or await self._prepare(pending)
            size_left -= pending.size_bytes
            if size_left < 0:
                break
        return some

    async def _prepare_all(self) -> None:
        self._make_rows()
        loop = _LoopYielder()
        for pending in list(self._pending.values()):
            if pending.record is not None:
                await self._prepare(pending)
                await loop.yield_if_due()

    async def _prepare(self, pending: _Pending) -> ComparisonRows:
        if (made := pending.decode()) is not None:
            return made
        record = pending.record
        assert record is not None
        rows = await run_in_thread("records", to_rows, record, full=self.mode == "full")
        if pending.record is not None:  # else a reader has prepared it meanwhile
            self._keep_rows(pending, rows)
        return rows

    def _keep_rows(self, pending: _Pending, rows: ComparisonRows) -> None:
        pending.rows, pending.record = rows, None
        if self.mode != "full":  # without its texts it is small: others may wait in the memory that was counted for them
            size = ROW_BYTES * len(rows.answers)
            if pending.number in self._pending:
                self._bytes += size - pending.size_bytes
            pending.size_bytes = size

    async def list_comparisons(self, filter_: ComparisonFilter) -> list[StoredComparison]:
        """Return the matching comparisons, newest first, without their answers; also those that are not written yet."""
        filter_ = filter_.clean()
        # Memory first, then the database: a comparison that is written in between is found twice, never missed.
        await self._prepare_all()
        await self._database.before_reading()
        found: dict[int, StoredComparison] = {}
        loop = _LoopYielder()
        for pending in list(self._pending.values()):
            if (rows := pending.decode()) and filter_.matches(rows):
                found[pending.number] = queries.summarize(rows)
            await loop.yield_if_due()
        written = await self._database.shield(queries.find_page(self._database, filter_))
        found |= {one.comparison.number: one for one in written}
        return [found[number] for number in sorted(found, reverse=True)[: filter_.limit]]

    async def find(self, id_: str) -> StoredComparison | None:
        """Return a comparison with its answers."""
        if pending := self._find_pending(id_):
            rows = await self._prepare(pending)
            found = queries.summarize(rows)
            found.answers = rows.answers
            return queries.insert_texts(found, rows.texts)
        await self._database.before_reading()
        return await self._database.shield(queries.find_comparison(self._database, id_))

    async def find_number(self, id_: str, account_id: str | None = None) -> int | None:
        """Return the number of a comparison; `None` if the account, or without one nobody, has it."""
        if pending := self._find_pending(id_):
            return pending.number if account_id in (None, (await self._prepare(pending)).comparison.account_id) else None
        await self._database.before_reading()
        found = await self._database.shield(queries.find_number(self._database, id_))
        return found[0] if found and account_id in (None, found[1]) else None

    async def spread_pages(self, before: int) -> None:
        """Give the comparisons with lower numbers, and those that stand in a page with one, rows of their own."""
        while await self._tables.spread_page(before):
            pass

    @property
    def ids_in_memory(self) -> list[str]:
        """The ids of the comparisons that are not written, which in memory are all."""
        return [pending.id for pending in self._pending.values()]

    def _find_pending(self, id_: str) -> _Pending | None:
        self._make_rows()
        return next((pending for pending in self._pending.values() if pending.id == id_), None)
