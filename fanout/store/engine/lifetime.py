"""The lifetime of a database: work begins in it, and is given up where the database does not answer at its end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fanout.core.errors import StoreClosedError, StoreError
from fanout.observability.logs import log
from fanout.store.engine.errors import describe_error


class Lifetime:
    """The time until a database is given up."""

    def __init__(self, database_name: str) -> None:
        self._database_name = database_name
        self._connections: WeakSet[Any] = WeakSet()
        """PostgreSQL's, of the driver."""
        self._limits: set[asyncio.Timeout] = set()
        """Of the transactions that are open."""
        self._abort: asyncio.TimerHandle | None = None
        self._is_over = False

    @asynccontextmanager
    async def limit(self) -> AsyncGenerator[None]:
        """End what runs in the context when the database is given up; raise a driver's or network's error as a `StoreError`."""
        if self._is_over:
            raise StoreClosedError
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise (StoreClosedError() if self._is_over else StoreError(describe_error(error))) from error
        finally:
            self._limits.discard(limit)

    def watch(self, engine: Any) -> None:
        """Have the connections of an asynchronous engine cut when the database is given up."""
        event.listen(engine.sync_engine, "connect", self._watch_connection)

    def _watch_connection(self, adapted: Any, _: ConnectionPoolEntry) -> None:
        self._connections.add(adapted.driver_connection)

    def end_after(self, seconds: float) -> None:
        """Fail all work that has not ended then, so that nothing waits for a database that does not answer."""
        if self._abort is None:
            self._abort = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self._is_over = True
        if self._limits:
            log.error("store.given_up", database=self._database_name)
        for connection in list(self._connections):
            connection.terminate()
        for limit in list(self._limits):  # whatever else they wait for: a place, a new connection
            limit.reschedule(0)

    def close(self) -> None:
        """Give nothing up any more: all work has ended."""
        if self._abort:
            self._abort.cancel()
