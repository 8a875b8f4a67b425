"""What outlives a process: tables in an embedded SQLite file or, by URL, in PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext

from sqlalchemy.exc import SQLAlchemyError

from fanout.store.engine.database import LOCK_TIMEOUT_MS, MEMORY, Database, create_file, describe_error
from fanout.store.engine.upgrade import upgrade
from fanout.store.history.recorder import History, HistoryMode
from fanout.store.idempotency import IdempotencyStore
from fanout.store.retention import DEFAULT_HISTORY_DAYS, Retention
from fanout.store.usage.counter import UsageLedger

__all__ = ["MEMORY", "OFF", "Store", "open_store"]

OFF = "off"
OPEN_TIMEOUT_S = 10.0
"""How long a database that another process holds is waited for."""
LOCK_MESSAGES = ("locked", "lock timeout")
"""SQLite's word for it, and PostgreSQL's."""


class Store:
    """An open database and what is kept in it."""

    def __init__(self, database: Database, history: HistoryMode = "usage", history_days: float = DEFAULT_HISTORY_DAYS) -> None:
        self.name = database.name
        self.database = database
        self.usage = UsageLedger(database)
        self.history = History(database, history)
        self.idempotency = None if database.in_memory else IdempotencyStore(database)
        """Where answers are kept to be given again; none in memory, where they would fill it."""
        self.retention = Retention(database, self.history, history_days)


@asynccontextmanager
async def open_store(
    location: str, *, history: HistoryMode = "usage", history_days: float = DEFAULT_HISTORY_DAYS
) -> AsyncGenerator[Store | None]:
    """The store at a location, its tables brought up to date; what is not yet written is written at the end.

    Args:
        location: a file's path, a SQLAlchemy URL, `:memory:`, or `off`: then there is none.
        history: what is kept of comparisons from now on.
        history_days: how long; 0: for ever.

    Raises:
        ConfigError: it cannot be opened, or a newer Fanout wrote it.
    """
    if location == OFF:
        yield None
        return
    database = Database(location)
    try:
        await _prepare(database, location)
        store = Store(database, history, history_days)
        repeating = store.idempotency.writing() if store.idempotency else nullcontext()
        async with store.usage.writing(), store.history.writing(), repeating, store.retention.deleting():
            yield store
    finally:
        await database.close()


async def _prepare(database: Database, location: str) -> None:
    """Makes the file where there is none, and its tables what they must be."""
    began = time.monotonic()
    try:
        await asyncio.to_thread(create_file, location)
        while True:
            try:
                async with database.writing() as connection:
                    await connection.run_sync(upgrade, database)
            except SQLAlchemyError as error:
                late = time.monotonic() - began > OPEN_TIMEOUT_S - LOCK_TIMEOUT_MS / 1e3
                if late or not any(word in describe_error(error) for word in LOCK_MESSAGES):
                    raise
                await asyncio.sleep(0.05)  # two that open a new file at once: SQLite makes one of them fail, not wait
            else:
                break
    except (SQLAlchemyError, OSError) as error:
        raise database.unusable(describe_error(error)) from error
