"""Listener to what other processes announce on PostgreSQL, over a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from fanout.observability.logs import log
from fanout.store.engine.database import Database
from fanout.store.engine.errors import describe_error

RETRY_INTERVAL_S = 2.0
"""Time between attempts to connect. Who listens looks by itself, too, so that a lost announcement costs only time."""


class Listener:
    """Reader of one channel, which hands what is announced there to a function."""

    def __init__(self, database: Database, channel: str, hear: Callable[[str], None]) -> None:
        self._database, self._channel, self._hear = database, channel, hear
        self._is_failing = False

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Listen in the background, and connect again whenever the connection is lost."""
        task = asyncio.create_task(self._run(), name=f"listener {self._channel}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if not self._is_failing:  # once, not every two seconds for as long as it lasts
                    log.warning("store.listen_failed", database=self._database.name, reason=describe_error(error))
                self._is_failing = True
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        engine, lost = self._database.make_engine(), asyncio.Event()
        try:
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _: lost.set())
                await driver.add_listener(self._channel, lambda *heard: self._hear(heard[-1]))
                self._is_failing = False
                await lost.wait()
                await connection.invalidate()
        finally:
            await engine.dispose()
