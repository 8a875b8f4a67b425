"""The history of interactive comparisons: taken as they end, written soon, readable at once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

from sqlalchemy import Connection, select

from fanout.core.errors import StoreError
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.store.engine.bulk_insert import insert_rows
from fanout.store.engine.database import Database
from fanout.store.engine.writers import WriteBehind
from fanout.store.history import queries
from fanout.store.history.queries import ComparisonFilter
from fanout.store.history.records import (
    RANDOM_BITS,
    ComparisonRecord,
    ComparisonRows,
    StoredComparison,
    first_number_at,
    to_rows,
)
from fanout.store.tables import answers, comparison_metadata, comparisons, history_texts

HistoryMode = Literal["off", "usage", "full"]
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64 * 2**20
"""Comparisons that wait to be written, and their size; any more are dropped."""
MAX_IN_MEMORY, MAX_BYTES_IN_MEMORY = 1_000, 16 * 2**20
"""Comparisons of a store in memory, and their size; the oldest make room for new ones."""
MAX_COMPARISONS_PER_WRITE, MAX_BYTES_PER_WRITE = 128, 4 * 2**20
"""Limits of one transaction: others want to write, too."""
MAX_TURN_S = 0.0005
"""How long the event loop is held at once."""
THREAD_BYTES = 128 * 1024
"""The size of a comparison from which its digests and JSON are made in a thread."""


@dataclass(slots=True)
class _Pending:
    """A comparison that is not written yet."""

    number: int
    id: str
    size_bytes: int
    record: ComparisonRecord | None  # until its rows are made: of two forms of a long answer only one is kept in memory
    rows: ComparisonRows | None = None


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

    def __init__(self, database: Database, mode: HistoryMode) -> None:
        self.mode = mode
        self._database = database
        self._pending: dict[int, _Pending] = {}  # by number, in the order in which they ended
        self._bytes = 0
        self._dropped = 0
        self._random = random.getrandbits(RANDOM_BITS)
        self._writer = WriteBehind("history", database.name, self._write_pending, lambda: len(self._pending))
        # Compiled once, and handed to the driver as text: through SQLAlchemy's own insert each row holds the loop ten times
        # as long (2026-11-20, 128 rows: 1.3 ms against 0.3).
        inserts = (database.insert_or_ignore(table) for table in (comparisons, answers, comparison_metadata))
        self._inserts = [database.compile_insert(insert) for insert in inserts]
        texts = database.insert(history_texts)
        newer = texts.excluded.day
        self._insert_text = database.compile_insert(
            texts.on_conflict_do_update(index_elements=["digest"], set_={"day": newer}, where=history_texts.c.day < newer)
        )

    def create_number(self, created: float) -> int:
        """Return a number for a comparison of this moment (Unix seconds) that no other one has."""
        self._random = (self._random + 1) % (1 << RANDOM_BITS)
        return first_number_at(created) + self._random

    def record(self, record: ComparisonRecord) -> None:
        """Take a comparison that has ended; drop it if too much waits to be written."""
        size = record.size_bytes
        if self._database.in_memory:
            self._make_room(size)
        # Bounded, because a database that cannot be written must not fill the memory of a server.
        elif len(self._pending) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            if not self._dropped:
                log.error("history.overflowed", database=self._database.name, waiting=len(self._pending))
            self._dropped += 1
            return
        pending = _Pending(record.number, record.id, size, record)
        if size <= THREAD_BYTES:
            # At once, not when it is written: its answers would be kept until then, half a second of all that were given.
            self._keep_rows(pending, to_rows(record, full=self.mode == "full"))
        self._bytes += pending.size_bytes
        self._pending[record.number] = pending
        self._writer.notify()

    def _make_room(self, size_bytes: int) -> None:
        while self._pending and (len(self._pending) >= MAX_IN_MEMORY or self._bytes + size_bytes > MAX_BYTES_IN_MEMORY):
            self._bytes -= self._pending.pop(next(iter(self._pending))).size_bytes

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        with suppress(StoreError):
            # Before anything is served: compiling each of these queries holds the event loop for milliseconds.
            for filter_ in (ComparisonFilter(until=0, model=""), ComparisonFilter(until=0)):
                await queries.find_page(self._database, filter_)
            await queries.find_comparison(self._database, "")
            await self.find_number("")
        async with self._writer.run():
            yield

    async def _write_pending(self) -> None:
        if self._database.in_memory:
            # They are the history: written to tables of the same process, they would only cost more (40 µs each).
            await self._prepare_all()
            return
        while self._pending:
            some = await self._prepare_next()
            await self._database.write(partial(self._write, some=some))
            # Only after the commit: what could not be written stays, and is tried again.
            for rows in some:
                self._bytes -= self._pending.pop(rows.comparison.number).size_bytes
            if self._dropped:
                log.info("history.overflow_ended", database=self._database.name, lost=self._dropped)
                self._dropped = 0

    async def _prepare_next(self) -> list[ComparisonRows]:
        some: list[ComparisonRows] = []
        left, loop = MAX_BYTES_PER_WRITE, _LoopYielder()
        # The oldest, as many as fit into one transaction; a copy, because others end while it yields.
        for pending in list(islice(self._pending.values(), MAX_COMPARISONS_PER_WRITE)):
            some.append(await self._prepare(pending))
            left -= pending.size_bytes
            if left < 0:
                break
            await loop.yield_if_due()
        return some

    async def _prepare_all(self) -> None:
        loop = _LoopYielder()
        for pending in list(self._pending.values()):
            if pending.rows is None:
                await self._prepare(pending)
                await loop.yield_if_due()

    async def _prepare(self, pending: _Pending) -> ComparisonRows:
        if pending.rows is not None:
            return pending.rows
        record = pending.record
        assert record is not None
        rows = await run_in_thread("records", to_rows, record, full=self.mode == "full")
        if pending.rows is None:  # else a reader has prepared it meanwhile
            size = pending.size_bytes
            self._keep_rows(pending, rows)
            if pending.number in self._pending:
                self._bytes += pending.size_bytes - size
        return pending.rows or rows

    def _keep_rows(self, pending: _Pending, rows: ComparisonRows) -> None:
        pending.rows, pending.record = rows, None
        if self.mode != "full":  # without its texts it is small: others may wait in the memory that was counted for them
            pending.size_bytes = 1024 * len(rows.answers)

    def _write(self, connection: Connection, some: Sequence[ComparisonRows]) -> None:
        texts = {digest: (digest, text, one.day) for one in some for digest, text in one.texts.items()}
        # Sorted, so that two processes never wait for each other's rows.
        insert_rows(connection, self._insert_text, [texts[digest] for digest in sorted(texts)])
        tables: tuple[Sequence[tuple[object, ...]], ...] = (
            [one.comparison for one in some],
            [answer for one in some for answer in one.answers],
            [(one.comparison.number, *pair) for one in some for pair in one.metadata.items()],
        )
        for statement, rows in zip(self._inserts, tables, strict=True):
            insert_rows(connection, statement, rows)

    async def list_comparisons(self, filter_: ComparisonFilter) -> list[StoredComparison]:
        """Return the matching comparisons, newest first, without their answers; also those that are not written yet."""
        # Memory first, then the database: a comparison that is written in between is found twice, never missed.
        await self._prepare_all()
        waiting = (pending.rows for pending in self._pending.values() if pending.rows and filter_.matches(pending.rows))
        found = {rows.comparison.number: queries.summarize(rows) for rows in waiting}
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
        return await self._database.shield(queries.find_comparison(self._database, id_))

    async def find_number(self, id_: str, account_id: str | None = None) -> int | None:
        """Return the number of a comparison; `None` if the account, or without one nobody, has it."""
        if pending := self._find_pending(id_):
            return pending.number if account_id in (None, (await self._prepare(pending)).comparison.account_id) else None
        columns = comparisons.c
        row = await self._database.fetch_one(select(columns.number, columns.account_id).where(columns.id == id_))
        return row.number if row and account_id in (None, row.account_id) else None

    @property
    def ids_in_memory(self) -> list[str]:
        """The ids of the comparisons that are not written, which in memory are all."""
        return [pending.id for pending in self._pending.values()]

    def _find_pending(self, id_: str) -> _Pending | None:
        return next((pending for pending in self._pending.values() if pending.id == id_), None)
