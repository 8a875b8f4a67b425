"""Writers in the background: a caller waits for its record (`GroupCommit`), or for nothing (`WriteBehind`)."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from sqlalchemy import Connection

from fanout.core.errors import StoreClosedError, StoreError
from fanout.core.lulls import LULLS
from fanout.observability.logs import log
from fanout.store.engine.database import Database

MAX_WAIT_S = 0.02
"""The longest wait of a group's first record for others."""
MAX_RECORDS = 256
"""Records of one transaction; any more go into the next one."""
FLUSH_INTERVAL_S = 0.5
"""The time between the first notification and the write; with the write itself a crash loses less than the last second."""
FINAL_WRITE_TIMEOUT_S = 5.0
"""How long writing is retried at the end before what is left is given up."""

Record = TypeVar("Record")
Write = Callable[[Connection, Sequence[Record]], Sequence[StoreError | None]]
"""Writes records into an open transaction; returns for each `None`, or the reason why it must not be written.

Of a SQLite file it runs in a thread, beside the event loop.
"""


class GroupCommit(Generic[Record]):
    """A writer of many tasks' records in one transaction. Tasks wait for theirs, so no more records wait than there are tasks.

    The flush to disk makes a commit slow, and takes as long for one record as for many.
    """

    def __init__(self, database: Database, write: Write[Record]) -> None:
        self._database, self._write = database, write
        self._waiting: deque[tuple[Record, asyncio.Future[None]]] = deque()
        self._has_records = asyncio.Event()
        self._is_closing = False

    def put(self, record: Record) -> asyncio.Future[None]:
        """Return what ends once the record is committed. It is written even if who awaits it is cancelled.

        Raises:
            StoreError: it is not written.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._has_records.set()
        return written

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background; records put before the end are written before the end."""
        self._is_closing = False
        task = asyncio.create_task(self._run_writer(), name="group commit")
        try:
            yield
        finally:
            self._is_closing = True
            self._has_records.set()
            await asyncio.shield(task)  # a cancelled owner must not lose what was promised to be written

    async def _run_writer(self) -> None:
        while self._waiting or not self._is_closing:
            await self._has_records.wait()
            await self._wait_for_group()
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_RECORDS))]
            if not (self._waiting or self._is_closing):
                self._has_records.clear()
            if group:
                await self._commit(group)

    async def _wait_for_group(self) -> None:
        """Wait while more records come, at most `MAX_WAIT_S`: tasks that wait for the last commit send nothing new.

        A millisecond without any costs a job a sixth of its rate: what comes during the commit is a group, too (2026-11-29).
        """
        until, count = time.monotonic() + MAX_WAIT_S, 0
        while count < len(self._waiting) < MAX_RECORDS and time.monotonic() < until:
            count = len(self._waiting)
            await asyncio.sleep(0)

    async def _commit(self, group: Sequence[tuple[Record, asyncio.Future[None]]]) -> None:
        # The answer if the task is cancelled or a bug ends the write: every caller gets one, or would wait for ever.
        errors: Sequence[StoreError | None] = [StoreError("the write was interrupted")] * len(group)
        try:
            records = [record for record, _ in group]
            errors = await self._database.write(lambda connection: self._write(connection, records))
        except StoreError as failure:
            errors = [failure] * len(group)
        except Exception:  # or this task would end, and every later caller wait for ever
            log.exception("store.write_crashed")
        finally:
            for (_, written), error in zip(group, errors, strict=True):
                if written.done():  # cancelled: nobody waits for it any more
                    continue
                if error:
                    written.set_exception(error)
                else:
                    written.set_result(None)


class WriteBehind:
    """A task that writes what its owner gathers, soon after it came, and again after a failure. Callers never wait for it."""

    def __init__(
        self,
        subject: str,
        database_name: str,
        write: Callable[[], Awaitable[None]],
        count_waiting: Callable[[], int],
        interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        """Create it; `run` starts the task.

        Args:
            subject: the first word of its log events: `usage.write_failed`.
            database_name: for the log.
            write: writes all that waits, or raises `StoreError` and keeps it.
            count_waiting: how much would be lost, for the log.
            interval_s: the time between the first notification, or another's write (`note_write`), and the write.
        """
        self._subject, self._database_name = subject, database_name
        self._write, self._count_waiting = write, count_waiting
        self._waiting = asyncio.Event()
        self._closing = asyncio.Event()
        self._interval_s = interval_s
        self._written = -math.inf
        """When another writer last wrote what waited, by the monotonic clock."""
        self.is_failing = self._is_hopeless = False
        self.turn = asyncio.Lock()
        """Held while something is written."""

    async def write(self) -> None:
        """Write now what waits, as far as that can be done."""
        await self._try_to_write()

    def notify(self) -> None:
        """Have something written soon."""
        self._waiting.set()

    def note_write(self) -> None:
        """Wait for another interval: another writer has just written what waited when it began."""
        self._written = time.monotonic()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Write in the background, and the rest at the end."""
        task = asyncio.create_task(self._run_writer(), name=self._subject)
        try:
            yield
        finally:
            # Not cancelled: a statement that is cut off takes its connection with it.
            self._closing.set()
            self._waiting.set()
            await task

    async def _run_writer(self) -> None:
        while not self._closing.is_set():
            await self._waiting.wait()
            await self._wait_for_interval()
            await LULLS.wait()
            self._waiting.clear()  # before the write: what comes during it wakes the next one
            if not await self._try_to_write():
                self._waiting.set()
        began = time.monotonic()
        while not await self._try_to_write():
            if self._is_hopeless or time.monotonic() - began > FINAL_WRITE_TIMEOUT_S:
                log.error(f"{self._subject}.lost", database=self._database_name, lost=self._count_waiting())
                return
            await asyncio.sleep(FLUSH_INTERVAL_S)

    async def _wait_for_interval(self) -> None:
        began = time.monotonic()
        while (left_s := max(began, self._written) + self._interval_s - time.monotonic()) > 0 and not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._closing.wait()

    async def _try_to_write(self) -> bool:
        """Write all that waits; log the first failure and the end of it."""
        try:
            async with self.turn:
                await self._write()
        except StoreError as error:
            if not self.is_failing:  # once, not twice a second for as long as it lasts
                log.error(f"{self._subject}.write_failed", database=self._database_name, reason=str(error))
            self.is_failing = True
            self._is_hopeless = isinstance(error, StoreClosedError)
            return False
        if self.is_failing:
            log.info(f"{self._subject}.write_recovered", database=self._database_name)
        self.is_failing = False
        return True
