"""Group commit: what many tasks want written goes into one transaction, and each waits until its own is on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.errors import StoreError
from fanout.store.database import Database, reason

WINDOW_S = 0.01
"""How long the first of a group waits for others."""
MOST_AT_ONCE = 512
"""Records of one transaction; whatever comes on top goes into the next one."""

Record = TypeVar("Record")


class Grouped(Generic[Record]):
    """Writes records in groups. Who puts one waits for it, so there are never more waiting than there are tasks."""

    def __init__(self, database: Database, write: Callable[[AsyncConnection, Sequence[Record]], Awaitable[None]]) -> None:
        self._database, self._write = database, write
        self._waiting: deque[tuple[Record, asyncio.Future[None]]] = deque()
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        """No more need be waited for."""

    async def put(self, *records: Record) -> None:
        """Returns once the records are committed, all in one transaction where they fit into one.

        A caller that is cancelled leaves them to be written.

        Raises:
            StoreError: they could not be written; none of their transaction is.
        """
        loop = asyncio.get_running_loop()
        written = [loop.create_future() for _ in records]
        self._waiting.extend(zip(records, written, strict=True))
        self._some.set()
        if len(self._waiting) >= MOST_AT_ONCE:
            self._full.set()
        for future in written:
            await asyncio.shield(future)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes while it lasts; what is put before its end is written before its end."""
        task = asyncio.create_task(self._write_always(), name="group commit")
        try:
            yield
        finally:
            while self._waiting:
                await asyncio.sleep(0)
                await asyncio.wait([future for _, future in list(self._waiting)])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _write_always(self) -> None:
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(WINDOW_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            if not self._waiting:
                self._some.clear()
            if len(self._waiting) < MOST_AT_ONCE:
                self._full.clear()
            await self._commit(group)

    async def _commit(self, group: Sequence[tuple[Record, asyncio.Future[None]]]) -> None:
        error: StoreError | None = None
        try:
            async with self._database.writing() as connection:
                await self._write(connection, [record for record, _ in group])
        except (SQLAlchemyError, OSError) as broken:
            error = StoreError(reason(broken))
        for _, future in group:
            if not future.done():
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(None)
