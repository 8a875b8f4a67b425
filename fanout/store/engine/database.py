"""A database: where it is, how it is opened, and the few things that SQLite and PostgreSQL do each in its own way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ColumnElement, Connection, Double, Table, event, func, literal_column, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from fanout.core.errors import ConfigError
from fanout.core.faults import Fault

MEMORY = ":memory:"
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
ALLOWED_LOCATIONS = "a file's path, `sqlite:///…`, `postgresql://…`, `:memory:` or `off`"
MAX_READERS = 4
"""As many read at once; further ones wait."""
LOCK_TIMEOUT_MS = 2_000
"""How long another process's lock is waited for: SQLite's on the file, PostgreSQL's on rows and tables."""
CONNECT_TIMEOUT_S = 10.0
"""How long PostgreSQL may take to answer a new connection."""
URL_OPTIONS = ("host", "port", "ssl", "sslmode")
"""What may stand behind the `?` of a PostgreSQL URL."""
REFUSED_VALUE_PREFIX = "invalid input for query argument"
"""How the driver begins to say that it cannot send a value; the value itself follows."""
READ_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "sqlite": {"begin": "BEGIN"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
WRITE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # At once: a transaction that reads first and writes then fails, instead of waiting, where another wrote in between.
    "sqlite": {"begin": "BEGIN IMMEDIATE"},
    "postgresql": {},
}
PostgresInsert = postgresql.Insert
SqliteInsert = sqlite.Insert


class Database:
    """Transactions on the database at a location. Close it."""

    def __init__(self, location: str) -> None:
        url = _url(location)
        self.dialect = url.get_backend_name()
        self.name = str(url.database) if self.dialect == "sqlite" else str(url.set(drivername=self.dialect, query={}))
        """What it is called in messages and in the log; no password is in it."""
        # A database in memory is one connection's own. Else writing has its own: slow readers must not hold it up.
        self.in_memory = url.database == MEMORY
        try:
            writing = _engine(url, 1)
            reading = writing if self.in_memory else _engine(url, MAX_READERS)
        except (ImportError, SQLAlchemyError) as error:
            raise self.unusable(f"{error}; `pip install 'fanout[postgresql]'` brings what PostgreSQL needs") from error
        self.running: set[asyncio.Task[Any]] = set()
        """What must come to its end before the connections are closed."""
        self._reading = reading.execution_options(**READ_OPTIONS[self.dialect])
        self._writing = writing.execution_options(**WRITE_OPTIONS[self.dialect])

    def unusable(self, why: str) -> ConfigError:
        """That it cannot be used, and what may be set instead."""
        return ConfigError(
            "environment", [Fault("FANOUT_STORE", f"`{self.name}` cannot be used: {why}; allowed: {ALLOWED_LOCATIONS}")]
        )

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction whose every statement sees what its first one saw."""
        async with self._reading.connect() as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that is committed at the end."""
        async with self._writing.begin() as connection:
            yield connection

    def add(self, table: Table) -> SqliteInsert | PostgresInsert:
        """An insert into a table of sums: where a row of that key stands already, each figure is added to it.

        Unknown (NULL) and known make known; unknown and unknown stay unknown.
        """
        insert = self.inserting(table)
        key = list(table.primary_key)
        sums: dict[str, ColumnElement[Any]] = {
            column.name: func.coalesce(column + insert.excluded[column.name], column, insert.excluded[column.name])
            for column in table.columns
            if column not in key
        }
        return insert.on_conflict_do_update(index_elements=key, set_=sums)

    def replace(self, table: Table, *, where: ColumnElement[bool]) -> SqliteInsert | PostgresInsert:
        """An insert that takes the place of the row of that key, as long as `where` holds for it; else that row stays."""
        insert = self.inserting(table)
        key = list(table.primary_key)
        values = {column.name: insert.excluded[column.name] for column in table.columns if column not in key}
        return insert.on_conflict_do_update(index_elements=[*key], set_=values, where=where)

    def add_missing(self, table: Table) -> SqliteInsert | PostgresInsert:
        """An insert that leaves a row of that key as it is."""
        return self.inserting(table).on_conflict_do_nothing()

    def now(self) -> ColumnElement[float]:
        """Unix seconds by the database's own clock, which is the same for all that use it."""
        if self.dialect == "sqlite":
            return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Double)
        return literal_column("extract(epoch from clock_timestamp())::double precision", Double)

    def inserting(self, table: Table) -> SqliteInsert | PostgresInsert:
        """An insert that may say what becomes of a row whose key stands already."""
        return sqlite.insert(table) if self.dialect == "sqlite" else postgresql.insert(table)

    def written_out(self, insert: SqliteInsert | PostgresInsert) -> str:
        """An insert of whole rows, as the driver takes it."""
        return str(insert.compile(dialect=self._writing.dialect))

    def lock_schema(self, connection: Connection) -> None:
        """Lets one process at a time change the tables; on SQLite, writing is already alone."""
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('fanout schema'))"))

    async def close(self) -> None:
        while self.running:
            await asyncio.wait(self.running)
        await self._reading.dispose()
        await self._writing.dispose()


def describe_error(error: SQLAlchemyError | OSError) -> str:
    """Why the database failed, in its own words, without the statement and its values."""
    if isinstance(error, DBAPIError):
        told = str(error.orig).partition("\n")[0]
        return told.partition(":")[0] if told.startswith(REFUSED_VALUE_PREFIX) else told
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error).partition("\n")[0]


def _url(location: str) -> URL:
    """The URL of a location, with the driver that we use.

    Raises:
        ConfigError: it is none. The text is not shown: it may hold a password.
    """
    if "://" not in location:
        path = location if location == MEMORY else str(Path(location).expanduser().absolute())
        return URL.create(DRIVERS["sqlite"], database=path)
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise ConfigError("environment", [Fault("FANOUT_STORE", f"is no URL; allowed: {ALLOWED_LOCATIONS}")]) from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise ConfigError("environment", [Fault("FANOUT_STORE", f"`{backend}` is not known; allowed: {ALLOWED_LOCATIONS}")])
    if backend == "postgresql":
        url = _known_options(url)
    return url.set(drivername=DRIVERS[backend], database=url.database or (MEMORY if backend == "sqlite" else None))


def _known_options(url: URL) -> URL:
    """A PostgreSQL URL whose options the driver takes, under its own names.

    Raises:
        ConfigError: it has others.
    """
    if strange := sorted(set(url.query) - set(URL_OPTIONS)):
        sentence = f"`{strange[0]}` cannot stand behind the `?` of a PostgreSQL URL; allowed: {', '.join(URL_OPTIONS)}"
        raise ConfigError("environment", [Fault("FANOUT_STORE", sentence)])
    return url.set(query={"ssl" if name == "sslmode" else name: value for name, value in url.query.items()})


def _engine(url: URL, connections: int) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        settings = {"lock_timeout": str(LOCK_TIMEOUT_MS), "application_name": "fanout"}
        asked = {"timeout": CONNECT_TIMEOUT_S, "server_settings": settings}
        # Asked before each use whether it still stands: the server may have been started anew.
        return create_async_engine(url, pool_size=connections, max_overflow=0, pool_pre_ping=True, connect_args=asked)
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=connections, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # or Python's driver begins transactions by itself, at other times than we do
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={LOCK_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def create_file(location: str) -> None:
    """Makes the file and its folders, for its owner's eyes only, where the location is a file that is not there yet.

    Raises:
        ConfigError: the location is no location.
        OSError: they cannot be made.
    """
    url = _url(location)
    if url.get_backend_name() != "sqlite" or url.database in (None, MEMORY) or "uri" in url.query:
        return
    path = Path(str(url.database))
    if not path.parent.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
