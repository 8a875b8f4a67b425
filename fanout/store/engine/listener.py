"""Listener to what other processes announce on PostgreSQL: one connection for all channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from fanout.observability.logs import log
from fanout.store.engine.errors import describe_error

if TYPE_CHECKING:  # see `connections.py`
    from sqlalchemy.ext.asyncio import AsyncEngine

RETRY_INTERVAL_S = 2.0
"""Time between attempts to connect. Who listens looks by itself, too, so that a lost announcement costs only time."""
Hear = Callable[[str], None]


class Listener:
    """Reader of channels, which hands what is announced there to functions; connected while there are any.

    Args:
        make_engine: makes an engine of one connection.
        database: its name in log lines.
    """

    def __init__(self, make_engine: Callable[[], AsyncEngine], database: str) -> None:
        self._make_engine, self._database = make_engine, database
        self._hearers: list[tuple[str, Hear]] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        """Somebody hears another channel, or the connection is lost."""
        self._is_failing = False

    @asynccontextmanager
    async def hearing(self, channel: str, hear: Hear) -> AsyncGenerator[None]:
        """Hear a channel in the background; the connection is made again whenever it is lost."""
        hearer = (channel, hear)
        self._hearers.append(hearer)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="listener")
        try:
            yield
        finally:
            self._hearers.remove(hearer)
            if not self._hearers and (task := self._task):
                self._task = None
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                if not self._is_failing:  # once, not every two seconds for as long as it lasts
                    log.warning("store.listen_failed", database=self._database, reason=describe_error(error))
                self._is_failing = True
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        engine = self._make_engine()
        try:
            async with engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _: self._changed.set())
                await self._hear_channels(driver)
                await connection.invalidate()
        finally:
            await engine.dispose()

    async def _hear_channels(self, driver: Any) -> None:
        heard: set[str] = set()
        try:
            while not driver.is_closed():
                self._changed.clear()
                for channel in {channel for channel, _ in self._hearers} - heard:
                    await driver.add_listener(channel, self._pass_on)
                    heard.add(channel)
                self._is_failing = False
                await self._changed.wait()
        except Exception as error:
            # Lost while it was to hear one more: the driver's own exceptions have no base that others know.
            if driver.is_closed():
                raise ConnectionError(str(error)) from error
            raise

    def _pass_on(self, _connection: Any, _pid: int, channel: str, text: str) -> None:
        for heard, hear in list(self._hearers):
            if heard == channel:
                hear(text)
