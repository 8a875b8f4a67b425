"""Group commit: the records of many tasks go into one transaction, and each task waits until its own is on disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.observability.logs import log
from fanout.store.engine.database import Database

MAX_WAIT_S = 0.02
"""The longest wait of a group's first record for others."""
QUIET_S = 0.001
"""A group is complete once nothing came for so long: tasks that wait for the last commit send nothing new."""
MAX_RECORDS = 256
"""Records of one transaction; any more go into the next one."""

Record = TypeVar("Record")
Write = Callable[[AsyncConnection, Sequence[Record]], Awaitable[Sequence[StoreError | None]]]
"""Writes records into an open transaction; returns for each `None`, or the reason why it must not be written."""


class GroupCommit(Generic[Record]):
    """A writer of records in groups. Every task waits for its record, so no more records wait than there are tasks."""

    def __init__(self, database: Database, write: Write[Record]) -> None:
        self._database, self._write = database, write
        self._waiting: deque[tuple[Record, asyncio.Future[None]]] = deque()
        self._has_records = asyncio.Event()
        self._is_closing = False

    async def put(self, record: Record) -> None:
        """Return once the record is committed. It is written even if the caller is cancelled.

        Raises:
            StoreError: it is not written.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._has_records.set()
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:
            written.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody else will look
            raise

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
        """Wait while more records come, at most `MAX_WAIT_S`."""
        until, count = time.monotonic() + MAX_WAIT_S, 0
        while count < len(self._waiting) < MAX_RECORDS and time.monotonic() < until:
            count = len(self._waiting)
            await asyncio.sleep(QUIET_S)

    async def _commit(self, group: Sequence[tuple[Record, asyncio.Future[None]]]) -> None:
        # The answer if the task is cancelled or a bug ends the write: every caller gets one, or would wait for ever.
        errors: Sequence[StoreError | None] = [StoreError("the write was interrupted")] * len(group)
        try:
            async with self._database.write_transaction() as connection:
                refusals = await self._write(connection, [record for record, _ in group])
            errors = refusals  # only now: the commit itself can fail
        except StoreError as failure:
            errors = [failure] * len(group)
        except Exception:  # or this task would end, and every later caller wait for ever
            log.exception("store.write_crashed")
        finally:
            for (_, written), error in zip(group, errors, strict=True):
                if error:
                    written.set_exception(error)
                else:
                    written.set_result(None)
