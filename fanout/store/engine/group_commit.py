"""Group commit: what many tasks want written goes into one transaction, and each waits until its own is on disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.observability.logs import log
from fanout.store.engine.database import Database, describe_error

MAX_WAIT_S = 0.02
"""How long the first of a group waits for others at most."""
QUIET_S = 0.001
"""Once nothing more comes for so long, the group is whole: who waits for the last one to be on disk sends nothing new."""
MAX_RECORDS = 256
"""Of one transaction; whatever comes on top goes into the next one."""

Record = TypeVar("Record")
Write = Callable[[AsyncConnection, Sequence[Record]], Awaitable[Sequence[StoreError | None]]]
"""Writes records into an open transaction; says of each whether it was written, or why it must not be."""


class GroupCommit(Generic[Record]):
    """Writes records in groups. Who puts one waits for it, so there are never more waiting than there are tasks."""

    def __init__(self, database: Database, write: Write[Record]) -> None:
        self._database, self._write = database, write
        self._waiting: deque[tuple[Record, asyncio.Future[None]]] = deque()
        self._some = asyncio.Event()
        self._closing = False

    async def put(self, record: Record) -> None:
        """Returns once the record is committed. A caller who is cancelled leaves it to be written.

        Raises:
            StoreError: it is not written.
        """
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((record, written))
        self._some.set()
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:
            written.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody else will look
            raise

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes while it lasts; what is put before its end is written before its end."""
        self._closing = False
        task = asyncio.create_task(self._write_always(), name="group commit")
        try:
            yield
        finally:
            self._closing = True
            self._some.set()
            await asyncio.shield(task)

    async def _write_always(self) -> None:
        while self._waiting or not self._closing:
            await self._some.wait()
            await self._gathered()
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_RECORDS))]
            if not (self._waiting or self._closing):
                self._some.clear()
            if group:
                await self._commit(group)

    async def _gathered(self) -> None:
        """Waits while more comes, for the window at most."""
        until, count = time.monotonic() + MAX_WAIT_S, 0
        while count < len(self._waiting) < MAX_RECORDS and time.monotonic() < until:
            count = len(self._waiting)
            await asyncio.sleep(QUIET_S)

    async def _commit(self, group: Sequence[tuple[Record, asyncio.Future[None]]]) -> None:
        errors: Sequence[StoreError | None] = [StoreError("the writing was broken off")] * len(group)
        try:
            async with self._database.writing() as connection:
                found = await self._write(connection, [record for record, _ in group])
            errors = found
        except (SQLAlchemyError, OSError) as broken:
            errors = [StoreError(describe_error(broken))] * len(group)
        except Exception:  # else nothing would ever be written any more, and whoever puts something would wait for ever
            log.exception("bug in writing")
        finally:
            for (_, written), error in zip(group, errors, strict=True):
                if error:
                    written.set_exception(error)
                else:
                    written.set_result(None)
