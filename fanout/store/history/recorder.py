"""The history of interactive comparisons: taken as they end, written soon, read whole whether written or not."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.observability.logs import log
from fanout.store.engine.database import Database, describe_error
from fanout.store.engine.reads import Readings
from fanout.store.engine.tables import answers, comparison_metadata, comparisons, history_texts
from fanout.store.history import queries
from fanout.store.history.filters import ComparisonFilter
from fanout.store.history.records import (
    RANDOM_BITS,
    ComparisonRecord,
    ComparisonRows,
    StoredComparison,
    first_number_at,
    to_rows,
)

HistoryMode = Literal["off", "usage", "full"]
FLUSH_S = 0.5
"""From a comparison's end to its writing; with the writing itself a crash loses less than the last second."""
FINAL_WRITE_TIMEOUT_S = 5.0
"""How long the last of it is tried to be written at the end."""
MAX_WAITING, MAX_WAITING_BYTES = 10_000, 64 * 2**20
"""Of comparisons that wait to be written; what comes on top is not kept."""
MAX_COMPARISONS_PER_WRITE, MAX_BYTES_PER_WRITE = 128, 4 * 2**20
"""Comparisons of one transaction: others want to write, too."""
ROWS_AT_ONCE = 128
"""As many take the event loop for less than a millisecond."""
MAX_TURN_S = 0.0005
"""After so long, others have their turn."""
BIG_BYTES = 128 * 1024
"""Of one comparison: its digests and its JSON are then made in a thread."""


@dataclass(slots=True)
class _Waiting:
    """A comparison that is not written yet."""

    number: int
    id: str
    size_bytes: int
    record: ComparisonRecord | None
    """Until its rows are made of it."""
    rows: ComparisonRows | None = None


class _Turns:
    """Gives others a turn where work takes long."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def over(self) -> None:
        if time.perf_counter() - self._began > MAX_TURN_S:
            await asyncio.sleep(0)
            self._began = time.perf_counter()


class History:
    """Takes comparisons (`record`), which never waits, and keeps them in the database."""

    def __init__(self, database: Database, mode: HistoryMode) -> None:
        self.mode = mode
        self.written = 0
        """Comparisons, by this process."""
        self._database = database
        self._unwritten: dict[int, _Waiting] = {}
        """By number, in the order in which they ended."""
        self._bytes = 0
        self._dropped = 0
        self._some = asyncio.Event()
        """There is something to write."""
        self._closing = asyncio.Event()
        self._readings = Readings()
        self._chance = random.getrandbits(RANDOM_BITS)
        self._failing = False
        # Made once, and given to the driver as they are: through SQLAlchemy's own insert each row takes the loop ten times as
        # long (2026-11-20, 128 rows: 1.3 ms against 0.3).
        inserts = (database.inserting(table).on_conflict_do_nothing() for table in (comparisons, answers, comparison_metadata))
        self._inserts = [database.written_out(insert) for insert in inserts]
        texts = database.inserting(history_texts)
        newer = texts.excluded.day
        self._remember = database.written_out(
            texts.on_conflict_do_update(index_elements=["digest"], set_={"day": newer}, where=history_texts.c.day < newer)
        )

    def number(self, created: float) -> int:
        """A number for a comparison of this moment (Unix seconds), which no other one has."""
        self._chance = (self._chance + 1) % (1 << RANDOM_BITS)
        return first_number_at(created) + self._chance

    def record(self, record: ComparisonRecord) -> None:
        """A comparison has ended."""
        size = record.size_bytes
        if len(self._unwritten) >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            if not self._dropped:
                log.error("history is not kept: too much of it waits to be written", database=self._database.name)
            self._dropped += 1
            return
        self._bytes += size
        self._unwritten[record.number] = _Waiting(record.number, record.id, size, record)
        self._some.set()

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes what is recorded while it lasts, and the last of it at its end."""
        with suppress(SQLAlchemyError, OSError):
            await self._warm()
        task = asyncio.create_task(self._write_always(), name="history")
        try:
            yield
        finally:
            self._closing.set()
            self._some.set()
            await task
            await self._readings.ended()

    async def _write_always(self) -> None:
        while not self._closing.is_set():
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._closing.wait()
            while self._unwritten and await self._written():
                pass
            if not self._unwritten:
                self._some.clear()
        began = time.monotonic()
        while self._unwritten and not (await self._written() and self._unwritten):
            if time.monotonic() - began > FINAL_WRITE_TIMEOUT_S:
                sentence = "history is lost: it could not be written before the end"
                log.error(sentence, database=self._database.name, comparisons=len(self._unwritten))
                return
            if self._unwritten:
                await asyncio.sleep(FLUSH_S)

    async def _written(self) -> bool:
        """Writes some of it, or keeps it where that fails; the first failure and the end of it are logged."""
        some = await self._next()
        try:
            async with self._database.writing() as connection:
                await self._write(connection, some)
        except (SQLAlchemyError, OSError) as error:
            if not self._failing:
                sentence = "history cannot be written; it is kept in memory and tried again"
                log.error(sentence, database=self._database.name, reason=describe_error(error))
            self._failing = True
            return False
        for rows in some:
            self._bytes -= self._unwritten.pop(rows.comparison.number).size_bytes
        self.written += len(some)
        if self._failing or self._dropped:
            log.info("history is written again", database=self._database.name, lost=self._dropped)
        self._failing, self._dropped = False, 0
        return True

    async def _next(self) -> list[ComparisonRows]:
        """The oldest of what waits, as much as goes into one transaction."""
        some: list[ComparisonRows] = []
        left, turns = MAX_BYTES_PER_WRITE, _Turns()
        for waiting in list(islice(self._unwritten.values(), MAX_COMPARISONS_PER_WRITE)):
            some.append(await self._prepared(waiting))
            left -= waiting.size_bytes
            if left < 0:
                break
            await turns.over()
        return some

    async def _prepared(self, waiting: _Waiting) -> ComparisonRows:
        """The rows of a comparison that is not written yet; what else it holds is let go."""
        if waiting.rows is not None:
            return waiting.rows
        record, full = waiting.record, self.mode == "full"
        assert record is not None
        rows = (
            await asyncio.to_thread(to_rows, record, full=full)
            if waiting.size_bytes > BIG_BYTES
            else to_rows(record, full=full)
        )
        if waiting.rows is None:
            waiting.rows, waiting.record = rows, None
            if not full:
                less = 1024 * len(rows.answers)
                self._bytes -= waiting.size_bytes - less
                waiting.size_bytes = less
        return waiting.rows

    async def _write(self, connection: AsyncConnection, some: Sequence[ComparisonRows]) -> None:
        of_comparisons = [one.comparison for one in some]
        of_answers = [answer for one in some for answer in one.answers]
        words = [(one.comparison.number, *item) for one in some for item in one.metadata.items()]
        texts = {digest: (digest, text, one.day) for one in some for digest, text in one.texts.items()}
        # In order: two processes must not wait for each other.
        await self._insert(connection, self._remember, [texts[digest] for digest in sorted(texts)])
        written: tuple[Sequence[tuple[Any, ...]], ...] = (of_comparisons, of_answers, words)
        for statement, rows in zip(self._inserts, written, strict=True):
            await self._insert(connection, statement, rows)

    async def _insert(self, connection: AsyncConnection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            await connection.exec_driver_sql(statement, [tuple(row) for row in rows[start : start + ROWS_AT_ONCE]])

    async def _warm(self) -> None:
        """Has the queries compiled before anything is served: each would hold the event loop for milliseconds."""
        nothing = ComparisonFilter(until=0, model="")
        for question in (nothing, ComparisonFilter(until=0)):
            await queries.find_page(self._database, question)
        await queries.find_comparison(self._database, "")
        await queries.find_number(self._database, "")

    async def page(self, question: ComparisonFilter) -> list[StoredComparison]:
        """The comparisons that are asked for, newest first; also those that are not written yet.

        Raises:
            StoreError: the database cannot be read.
        """
        # First what is not written, then what is: whatever is written in between is found twice, but found.
        found = {}
        turns = _Turns()
        for waiting in list(self._unwritten.values()):
            rows = await self._prepared(waiting)
            if question.takes(rows):
                found[rows.comparison.number] = queries.summarize(rows)
            await turns.over()
        written = await self._readings.of(queries.find_page(self._database, question))
        found |= {one.comparison.number: one for one in written}
        return [found[number] for number in sorted(found, reverse=True)[: question.most]]

    async def one(self, id_: str) -> StoredComparison | None:
        """A comparison, whole.

        Raises:
            StoreError: the database cannot be read.
        """
        if waiting := self._waiting_of(id_):
            rows = await self._prepared(waiting)
            found = queries.summarize(rows)
            found.answers = rows.answers
            return queries.insert_texts(found, rows.texts)
        return await self._readings.of(queries.find_comparison(self._database, id_))

    async def number_of(self, id_: str) -> int | None:
        """The number of a comparison.

        Raises:
            StoreError: the database cannot be read.
        """
        waiting = self._waiting_of(id_)
        return waiting.number if waiting else await self._readings.of(queries.find_number(self._database, id_))

    def _waiting_of(self, id_: str) -> _Waiting | None:
        return next((waiting for waiting in self._unwritten.values() if waiting.id == id_), None)
