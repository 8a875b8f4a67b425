"""Engines of SQLAlchemy: the settings of SQLite and PostgreSQL for each connection, and how long either may take."""

from __future__ import annotations

import socket
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from fanout.core.lean_imports import import_part
from fanout.core.sockets import notice_silence
from fanout.store.engine.location import as_read_only

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
else:  # whose package imports SQLAlchemy's ORM: 6 MB and 70 ms of CPU
    create_async_engine = import_part("sqlalchemy.ext.asyncio", "engine").create_async_engine

LOCK_TIMEOUT_MS = 2_000
"""The longest wait for another process's lock: on the file with SQLite, on rows and tables with PostgreSQL."""
CONNECT_TIMEOUT_S = 5.0
"""The longest wait for PostgreSQL to answer a new connection."""
POOL_TIMEOUT_S = 10.0
"""The longest wait for another reader or writer of this process to free its connection."""
STATEMENT_TIMEOUT_S = 10.0
"""The longest wait for PostgreSQL to answer a statement: a network that has fallen silent looks like a slow one."""
BEGIN_WRITE = "BEGIN IMMEDIATE"
"""Of SQLite: a transaction that reads before it writes would fail, instead of waiting, if another one wrote in between."""
MIGRATION_TIMEOUT_S = 3600.0
"""The same for a migration, which may write a large table anew; keep-alive still finds out a silent network."""


def create_engine(
    url: URL, connections: int, statement_timeout_s: float | None = None, *, is_lasting: bool = True
) -> AsyncEngine:
    """Return an engine with at most so many connections.

    Args:
        url: of the database.
        connections: how many.
        statement_timeout_s: how long PostgreSQL may take for a statement, else as usual.
        is_lasting: a file's commits are on disk before they return.
    """
    if url.get_backend_name() != "sqlite":
        settings = {"lock_timeout": str(LOCK_TIMEOUT_MS), "application_name": "fanout"}
        options = {
            "timeout": min(CONNECT_TIMEOUT_S, statement_timeout_s or CONNECT_TIMEOUT_S),
            "command_timeout": statement_timeout_s or STATEMENT_TIMEOUT_S,
            "server_settings": settings,
        }
        # pre_ping: the server may have been restarted since the connection was last used.
        engine = create_async_engine(
            url, pool_size=connections, max_overflow=0, pool_timeout=POOL_TIMEOUT_S, pool_pre_ping=True, connect_args=options
        )
        event.listen(engine.sync_engine, "connect", _prepare_postgres)
        return engine
    engine = create_async_engine(as_read_only(url), poolclass=AsyncAdaptedQueuePool, pool_size=connections, max_overflow=0)
    _listen_sqlite(engine.sync_engine, is_lasting=is_lasting)
    return engine


def create_blocking_engine(url: URL, connections: int, begin: str, *, is_lasting: bool = True) -> Engine:
    """Return an engine that works on a SQLite file in the threads that use it, and begins transactions by this statement."""
    url = as_read_only(url).set(drivername="sqlite")
    engine = create_sync_engine(url, pool_size=connections, max_overflow=0, execution_options={"begin": begin})
    _listen_sqlite(engine, is_lasting=is_lasting)
    return engine


def find_driver(connection: Connection) -> sqlite3.Connection | None:
    """Return the driver's connection to a SQLite file that threads use; `None`: another driver is behind it."""
    driver = connection.connection.driver_connection
    return driver if isinstance(driver, sqlite3.Connection) else None


def execute_text(connection: Connection, sql: str, values: tuple[object, ...] = ()) -> Any:
    """Execute SQL that is as the driver takes it, and return its cursor.

    By Python's own driver where that is used: SQLAlchemy takes 30 to 70 µs for a statement, and a group of records has six.
    """
    driver = find_driver(connection)
    return driver.execute(sql, values) if driver else connection.exec_driver_sql(sql, values)


def _listen_sqlite(engine: Engine, *, is_lasting: bool) -> None:
    event.listen(engine, "connect", partial(_prepare_sqlite, is_lasting=is_lasting))
    event.listen(engine, "begin", _begin_sqlite)


def _prepare_postgres(adapted: Any, _: ConnectionPoolEntry) -> None:
    # The statements' timeout finds out a silent network while a statement runs; this one, between statements.
    transport = getattr(adapted.driver_connection, "_transport", None)
    raw: socket.socket | None = transport.get_extra_info("socket") if transport else None
    if raw is not None and raw.family != socket.AF_UNIX:
        notice_silence(raw)


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry, *, is_lasting: bool) -> None:
    connection.isolation_level = None  # or Python's driver begins transactions by itself, at other times than we do
    cursor = connection.cursor()
    # WAL lets readers and the writer work side by side; FULL has every commit on disk before it returns, and with NORMAL the
    # last ones are gone after the machine has failed.
    synchronous = f"synchronous={'FULL' if is_lasting else 'NORMAL'}"
    for pragma in (f"busy_timeout={LOCK_TIMEOUT_MS}", "journal_mode=WAL", synchronous, "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    driver = find_driver(connection)
    if driver is not None and driver.in_transaction:
        # One that could not be committed, as of another process that reads where there is no WAL. SQLAlchemy has forgotten it.
        driver.rollback()
    execute_text(connection, connection.get_execution_options().get("begin", "BEGIN"))
