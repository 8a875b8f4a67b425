"""A store that is open, and what opens it: the tables brought up to date, and the records in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress

from sqlalchemy import Connection, inspect

from fanout.core.errors import StoppingError, StoreError
from fanout.core.schema import Outcome, Retry
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.store.call_times import CallTimes
from fanout.store.engine.connections import LOCK_TIMEOUT_MS
from fanout.store.engine.database import Database
from fanout.store.engine.errors import describe_error, is_away
from fanout.store.engine.location import MEMORY, OFF, create_file, find_file, parse_location
from fanout.store.engine.upgrade import has_current_tables, upgrade
from fanout.store.history.recorder import History, HistoryMode
from fanout.store.idempotency import IdempotencyStore
from fanout.store.keys.audit import AuditLog
from fanout.store.keys.key_store import KeyStore
from fanout.store.limits.sharing import SharedLimits
from fanout.store.processes import Processes
from fanout.store.retention import DEFAULT_HISTORY_DAYS, DEFAULT_USAGE_DAYS, Retention
from fanout.store.shared_tables import shared_limits
from fanout.store.usage import UsageLedger

__all__ = ["MEMORY", "OFF", "Store", "open_store"]

OPEN_TIMEOUT_S = 10.0
"""The longest wait at the start for a database that another process has locked."""
AWAY_TIMEOUT_S = 300.0
"""The longest wait at the start for PostgreSQL, where it is away."""
FIRST_RETRY_S, MAX_RETRY_S = 0.5, 10.0
"""Time between two attempts to reach it, which doubles with each."""
ASK_TIMEOUT_S = 2.0
"""The longest that PostgreSQL may take for an ask: after that the process goes on without it."""
LIMITS_SUFFIX = "-limits"
"""Of the file beside a store's, with what its processes share of their limits; what it holds is of no use after a minute."""
LOCK_MESSAGES = ("locked", "lock timeout")
"""How SQLite and PostgreSQL say that the database is locked."""


class Store:
    """An open database and the records in it."""

    def __init__(
        self,
        database: Database,
        history: HistoryMode = "usage",
        history_days: float = DEFAULT_HISTORY_DAYS,
        usage_days: float = DEFAULT_USAGE_DAYS,
        limits: SharedLimits | None = None,
    ) -> None:
        self.name = database.name
        self.limits = limits
        """What this process shares with others; `None`: it keeps limits by itself."""
        self.database = database
        self.usage = UsageLedger(database)
        self.times = CallTimes(database)
        self.history = History(database, history, (self.usage.sums, self.times.sums))
        self.audit = AuditLog(database)
        self.keys = KeyStore(database)
        self.processes = Processes(database)
        self.idempotency = None if database.in_memory else IdempotencyStore(database)
        """Answers to be replayed; none in memory, which they would fill."""
        self.retention = Retention(database, self.history, history_days, usage_days)

    async def write(self) -> None:
        """Write now what waits to be written, as far as that can be done."""
        await asyncio.gather(self.usage.write(), self.times.write(), self.history.write())

    def observe(self, *events: Outcome | Retry) -> None:
        """Count calls, as an observer of the Dispatcher."""
        self.usage.observe(*events)
        self.times.observe(*events)


@asynccontextmanager
async def open_store(
    location: str,
    *,
    history: HistoryMode = "usage",
    history_days: float = DEFAULT_HISTORY_DAYS,
    usage_days: float = DEFAULT_USAGE_DAYS,
    is_reading: bool = False,
    deletes_old: bool = True,
    shares_limits: bool | None = False,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[Store | None]:
    """Open the store at a location, its tables brought up to date; at the end, write what is not written yet.

    Args:
        location: a file's path, a SQLAlchemy URL, `:memory:`, or `off`: then there is no store.
        history: what is kept of comparisons from now on.
        history_days: for how long; 0: for ever.
        usage_days: for how long usage is kept; 0: for ever.
        deletes_old: false where another process of the same server does it.
        is_reading: nothing will be written, so that neither another's lock nor a read-only database is in the way.
        shares_limits: whether the limits of accounts are kept together with all processes that open this store so;
            `None`: on PostgreSQL, which is there for many.
        stop: of a process that waits for PostgreSQL where it is away, until this is set; `None`: that is an error at once.

    Raises:
        StoppingError: it was set.
        ConfigError: it cannot be opened, or a newer Fanout wrote it.
    """
    if location == OFF:
        yield None
        return
    database = Database(location)
    try:
        if stop and database.dialect != "sqlite":
            await _reach(database, stop)
        await _prepare(database, location)
        if is_reading:
            yield Store(database, history, history_days, usage_days)
            return
        async with _open_limits(database, location, shares_limits=shares_limits) as limits:
            store = Store(database, history, history_days, usage_days, limits)
            idempotency = store.idempotency.run() if store.idempotency else nullcontext()
            retention = store.retention.run() if deletes_old else nullcontext()
            async with store.usage.run(), store.times.run(), store.history.run(), idempotency, retention:
                try:
                    yield store
                finally:
                    database.give_up_after()
    finally:
        await database.close()


@asynccontextmanager
async def _open_limits(database: Database, location: str, *, shares_limits: bool | None) -> AsyncGenerator[SharedLimits | None]:
    """Open this process's part of limits that several keep together; `None` where each keeps its own."""
    is_server = database.dialect != "sqlite"
    if not (is_server if shares_limits is None else shares_limits) or database.in_memory:
        yield None
        return
    # A connection of its own, and of a store in a file another file: an ask must not wait behind what is written otherwise.
    own = database
    if is_server:
        own = Database(location, statement_timeout_s=ASK_TIMEOUT_S)
    elif file := find_file(parse_location(location)):
        place = f"{file}{LIMITS_SUFFIX}"
        own = Database(place, is_lasting=False)
        await _prepare(own, place, _has_limits, _create_limits)
    # Last to open and first to close: calls have ended by then, and what they used is known.
    limits = SharedLimits(own, database.listener if is_server else None)
    try:
        async with limits.run():
            yield limits
    finally:
        if own is not database:
            await own.close()


def _has_limits(connection: Connection, _: Database) -> bool:
    return inspect(connection).has_table(shared_limits.name)


def _create_limits(connection: Connection, _: Database) -> None:
    shared_limits.create(connection, checkfirst=True)


async def _reach(database: Database, stop: asyncio.Event) -> None:
    """Wait until PostgreSQL can be reached, where it is away."""
    began, pause_s, is_away_now = time.monotonic(), FIRST_RETRY_S, False
    while True:
        try:
            async with database.read_transaction():
                break
        except StoreError as error:
            left_s = began + AWAY_TIMEOUT_S - time.monotonic()
            if not is_away(error.__cause__) or left_s <= 0:
                raise database.to_config_error(str(error)) from error
            if not is_away_now:  # once, not for each attempt
                log.warning("store.unreachable", database=database.name, reason=str(error), given_up_after_s=AWAY_TIMEOUT_S)
            is_away_now = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), min(pause_s, left_s))
        if stop.is_set():
            raise StoppingError
        pause_s = min(2 * pause_s, MAX_RETRY_S)
    if is_away_now:
        log.info("store.reached", database=database.name, after_s=round(time.monotonic() - began, 1))


async def _prepare(
    database: Database,
    location: str,
    has_tables: Callable[[Connection, Database], bool] = has_current_tables,
    make_tables: Callable[[Connection, Database], None] = upgrade,
) -> None:
    began = time.monotonic()
    try:
        await run_in_thread("setup", create_file, location)
        while True:
            try:
                # Only what has something to migrate takes the lock: another process may hold it for long.
                async with database.read_transaction() as connection:
                    is_current = await connection.run_sync(has_tables, database)
                if not is_current:
                    async with database.migration_transaction() as connection:
                        await connection.run_sync(make_tables, database)
            except StoreError as error:
                is_late = time.monotonic() - began > OPEN_TIMEOUT_S - LOCK_TIMEOUT_MS / 1e3
                if is_late or not any(message in str(error) for message in LOCK_MESSAGES):
                    raise
                # When two processes open a new file at once, SQLite fails one of them instead of letting it wait.
                await asyncio.sleep(0.05)
            else:
                break
    except StoreError as error:
        raise database.to_config_error(str(error)) from error
    except OSError as error:
        raise database.to_config_error(describe_error(error)) from error
